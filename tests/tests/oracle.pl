#!/usr/bin/perl
# The recipe this crate began with, as a line echo: one process, one select, no fork. It is run by
# perl_oracle.rs, says its port on standard output, and ends when standard input does.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Handle;
use IO::Select;
use IO::Socket::INET;

$SIG{PIPE} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64)
    or die "cannot listen: $@\n";
$listener->blocking(0);
STDOUT->autoflush(1);
print $listener->sockport, "\n";

my $all = IO::Select->new($listener, \*STDIN);
my (%in, %out);

sub gone {
    my ($client) = @_;
    delete $in{$client};
    delete $out{$client};
    $all->remove($client);
    close $client;
}

while (1) {
    my $writers = IO::Select->new(grep { length($out{$_} // '') } $all->handles);
    my ($readable, $writable) = IO::Select->select($all, $writers, undef);
    next unless defined $readable;

    for my $client (@$readable) {
        if ($client == \*STDIN) {
            exit 0;
        }
        if ($client == $listener) {
            if (my $new = $listener->accept) {
                $new->blocking(0);
                binmode $new;
                $all->add($new);
                ($in{$new}, $out{$new}) = ('', '');
            }
            next;
        }
        my $count = sysread $client, my $bytes, 4096;
        if (!defined $count) {
            gone($client) unless $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
            next;
        }
        if ($count == 0) {
            gone($client);
            next;
        }
        $in{$client} .= $bytes;
        # Every complete line is a request; what is left over waits.
        while ($in{$client} =~ s/\A([^\n]*\n)//) {
            $out{$client} .= $1;
        }
    }

    for my $client (@$writable) {
        next unless length($out{$client} // '');
        my $count = syswrite $client, $out{$client};
        if (defined $count) {
            substr($out{$client}, 0, $count) = '';
        }
        elsif (!($!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR})) {
            gone($client);
        }
    }
}
