#!/usr/bin/perl
# Newline echo as the recipe for a server that does not fork does it: one select over all, a buffer in
# and a buffer out for each client.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select;
use IO::Socket::INET;

$SIG{PIPE} = 'IGNORE';
my $port     = shift // die "usage: $0 PORT\n";
my $listener = IO::Socket::INET->new(
    LocalAddr => "127.0.0.1:$port",
    Listen    => 4096,
    ReuseAddr => 1,
) or die "cannot listen: $@\n";
$listener->blocking(0);

my $all = IO::Select->new($listener);
my (%in, %out);

sub gone {
    my ($client) = @_;
    delete $in{$client};
    delete $out{$client};
    $all->remove($client);
    close $client;
}

sub retry { $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR} }

while (1) {
    # Of whoever has a reply waiting, we want to know when it can be written.
    my $writers = IO::Select->new(grep { length($out{$_} // '') } $all->handles);
    my ($readable, $writable) = IO::Select->select($all, $writers, undef);
    next unless defined $readable;

    # Replies first: who has finished sending is read to its end, and then gone.
    for my $client (@$writable) {
        next unless length($out{$client} // '');
        my $count = syswrite $client, $out{$client};
        if (defined $count) {
            substr($out{$client}, 0, $count) = '';
        }
        elsif (!retry()) {
            gone($client);
        }
    }

    for my $client (@$readable) {
        next unless defined fileno $client;
        if ($client == $listener) {
            while (my $new = $listener->accept) {
                $new->blocking(0);
                $all->add($new);
                ($in{$new}, $out{$new}) = ('', '');
            }
            next;
        }
        my $count = sysread $client, my $bytes, 65536;
        if (!$count) {
            gone($client) unless !defined $count && retry();
            next;
        }
        $in{$client} .= $bytes;
        while ($in{$client} =~ s/\A([^\n]*\n)//) {
            $out{$client} .= $1;
        }
        gone($client) if length($in{$client}) > 65536;
    }
}
