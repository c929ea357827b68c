// A client of a server behind TLS with what Go brings along. It prints "all is right", or what is not.
//
// The server answers lines, wants a certificate, and speaks "lines".
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	clients = 100
	lines   = 20
)

var address = os.Args[1]

// How a client is set up that has all it needs.
func good(version uint16) *tls.Config {
	pem, err := os.ReadFile(os.Args[2])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	own, err := tls.LoadX509KeyPair(os.Args[3], os.Args[3])
	check(err)
	return &tls.Config{
		RootCAs: roots, ServerName: "server.test", MinVersion: version, MaxVersion: version,
		Certificates: []tls.Certificate{own}, NextProtos: []string{"x", "lines"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(what string, got, expected interface{}) {
	if got != expected {
		panic(fmt.Sprintf("%s: %v, not %v", what, got, expected))
	}
}

func connect(config *tls.Config) *tls.Conn {
	conn, err := tls.Dial("tcp", address, config)
	check(err)
	check(conn.SetDeadline(time.Now().Add(15 * time.Second)))
	return conn
}

// Asks for the facts, and for the end of the connection.
func converse(config *tls.Config, resumes bool) {
	conn := connect(config)
	defer conn.Close()
	state := conn.ConnectionState()
	expect("resumed", state.DidResume, resumes)
	expect("protocol", state.NegotiatedProtocol, "lines")
	long := strings.Repeat("x", 100000) + "\n"
	go io.WriteString(conn, long+"facts\nclose\n")
	stream := bufio.NewReader(conn)
	line, err := stream.ReadString('\n')
	check(err)
	expect("a long line", line == long, true)
	facts, err := stream.ReadString('\n')
	check(err)
	for _, part := range []string{"TLSv1.", "Some(\"lines\")", "Some(\"server.test\")"} {
		expect(facts+part, strings.Contains(facts, part), true)
	}
	expect(facts+"has a certificate", strings.Contains(facts, "[]"), false)
	rest, err := io.ReadAll(stream)
	// Go says so if the end comes without a close_notify.
	check(err)
	expect("the end", string(rest), "bye\n")
}

// Says that nothing more comes, in the middle of a line.
func finish(config *tls.Config) {
	conn := connect(config)
	defer conn.Close()
	_, err := io.WriteString(conn, "one\nthe end")
	check(err)
	check(conn.CloseWrite())
	rest, err := io.ReadAll(conn)
	check(err)
	expect("behind the end", string(rest), "one\nthe end\n")
}

func crowd(config *tls.Config) {
	var all sync.WaitGroup
	for client := 0; client < clients; client++ {
		all.Add(1)
		go func(client int) {
			defer all.Done()
			conn := connect(config)
			defer conn.Close()
			stream := bufio.NewReader(conn)
			for number := 0; number < lines; number++ {
				line := fmt.Sprintf("client %d line %d\n", client, number)
				_, err := io.WriteString(conn, line)
				check(err)
				answer, err := stream.ReadString('\n')
				check(err)
				expect("an answer", answer, line)
			}
		}(client)
	}
	all.Wait()
}

// A client that is refused with this alert: with TLS 1.3 it may learn of that only when it reads.
func refused(config *tls.Config, alert string) {
	conn, err := tls.Dial("tcp", address, config)
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	expect(fmt.Sprint(err, ": ", alert), strings.Contains(fmt.Sprint(err), alert), true)
}

func main() {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := good(version)
		converse(config, false)
		converse(config, true)
		finish(config)
		crowd(config)
		other := good(version)
		other.NextProtos = []string{"x"}
		refused(other, "no application protocol")
		nobody := good(version)
		nobody.Certificates = nil
		refused(nobody, "remote error: tls: ")
		older := good(version)
		older.MinVersion, older.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		refused(older, "remote error: tls: ")
	}
	fmt.Println("all is right")
}
