// Newline echo with Go: each line is answered by a goroutine of its own, through a channel.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
)

const lineMax = 64 * 1024

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: PORT")
		os.Exit(2)
	}
	runtime.GOMAXPROCS(1)
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
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

func work(line []byte, answer chan []byte) {
	answer <- line
}

// serve writes when nothing more has been read.
func serve(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, lineMax)
	answer := make(chan []byte)
	var output []byte
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		go work(append([]byte(nil), line...), answer)
		output = append(output, <-answer...)
		if reader.Buffered() == 0 || len(output) > lineMax {
			if _, err := conn.Write(output); err != nil {
				return
			}
			output = output[:0]
		}
	}
}
