// Newline echo with Go's net package, over TLS if there is a certificate: a goroutine per connection,
// one processor, a write per read.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
)

const lineMax = 64 * 1024

func main() {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: PORT [CERTIFICATE KEY]")
		os.Exit(2)
	}
	runtime.GOMAXPROCS(1)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) == 4 {
		certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		listener = tls.NewListener(listener, config)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go serve(conn)
	}
}

// serve keeps input up to have; there is no line end before seen.
func serve(conn net.Conn) {
	defer conn.Close()
	input := make([]byte, 4096)
	var output []byte
	have := 0
	for {
		n, err := conn.Read(input[have:])
		if err != nil {
			return
		}
		seen, used := have, 0
		have += n
		full := have == len(input)
		for {
			end := bytes.IndexByte(input[seen:have], '\n')
			if end < 0 {
				break
			}
			seen += end + 1
			output = append(output, input[used:seen]...)
			used = seen
		}
		copy(input, input[used:have])
		have -= used
		if len(output) > 0 {
			if _, err := conn.Write(output); err != nil {
				return
			}
			output = output[:0]
		}
		if have > lineMax {
			return
		}
		if full && len(input) <= lineMax {
			input = append(input, make([]byte, len(input))...)
		}
	}
}
