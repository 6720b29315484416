package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func body(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(raw)
}

func TestHTTP(t *testing.T) {
	t.Setenv("SHOAL_TASK", "web.3")
	t.Setenv("SHOAL_NODE", "h2")
	exited := make(chan int, 1)
	server := httptest.NewServer(handler(func(code int) { exited <- code }))
	defer server.Close()
	status, text := body(t, server.URL+"/")
	want := "task=web.3\nnode=h2\nclient=127.0.0.1:"
	if status != 200 || !strings.HasPrefix(text, want) || !strings.HasSuffix(text, "\nlocal="+server.Listener.Addr().String()+"\nversion="+version+"\n") {
		t.Errorf("%d %q", status, text)
	}
	for _, step := range []struct {
		path   string
		status int
	}{
		{"/health", 200}, {"/health?set=503", 503}, {"/health", 503}, {"/health?set=x", 400}, {"/health?set=200", 200}, {"/health", 200},
		{"/slow?ms=1", 200}, {"/slow?ms=-1", 400}, {"/exit?code=999", 400}, {"/nope", 404}, {"/exit?code=7", 200},
	} {
		if status, text := body(t, server.URL+step.path); status != step.status {
			t.Errorf("%s: %d %s", step.path, status, text)
		}
	}
	if code := <-exited; code != 7 {
		t.Errorf("exit code %d", code)
	}
}

func TestUDP(t *testing.T) {
	t.Setenv("SHOAL_TASK", "web.3")
	for _, listen := range []string{":0", "0.0.0.0:0"} {
		p, err := listenPackets(listen)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.serve() }()
		_, port, _ := net.SplitHostPort(p.conn.LocalAddr().String())
		for _, address := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
			target := net.JoinHostPort(address, port)
			if address == "::1" && listen != ":0" {
				continue
			}
			conn, err := net.Dial("udp", target)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 2048)
			n, err := conn.Read(buffer) // a connected socket takes answers from the asked address only
			text := string(buffer[:n])
			if err != nil || !strings.Contains(text, "client="+conn.LocalAddr().String()+"\nlocal="+target+"\n") {
				t.Errorf("%s: %q %v", target, text, err)
			}
			conn.Close()
		}
		if err := p.conn.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	server := httptest.NewServer(handler(func(int) {}))
	defer server.Close()
	for want, lines := range map[int][][]string{
		0: {{"get", server.URL}, {"get", "-n", "3", server.URL}, {"lookup", "localhost"}},
		1: {{"get", server.URL + "/nope"}, {"get", "-n", "2", "http://127.0.0.1:1/"}, {"lookup", "nope.invalid"}},
		2: {{"dance"}, {"get"}, {"get", "-n", "0", server.URL}, {"udp", "a", "b"}, {"lookup"}},
	} {
		for _, args := range lines {
			if got := run(args); got != want {
				t.Errorf("%v: exit status %d, not %d", args, got, want)
			}
		}
	}
}

func FuzzDestination(f *testing.F) {
	f.Add([]byte{36, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 50, 0, 0, 0})
	f.Fuzz(func(t *testing.T, control []byte) {
		if address, _ := destination(control); !address.IsValid() {
			t.Error("no address")
		}
	})
}
