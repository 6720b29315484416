package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxWait bounds /slow.
	maxWait = 5 * time.Minute
	// endPatience is how long requests in flight may take after SIGTERM.
	endPatience = 5 * time.Second
)

// lines is the answer: who this is, who asks, and over which address.
func lines(client, local string) string {
	task, node := os.Getenv("SHOAL_TASK"), os.Getenv("SHOAL_NODE")
	if host, err := os.Hostname(); task == "" && err == nil {
		task = host
	}
	return fmt.Sprintf("task=%s\nnode=%s\nclient=%s\nlocal=%s\nversion=%s\n", task, node, client, local, version)
}

// serve answers until SIGTERM or SIGINT, then lets requests in flight end.
func serve() error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "80"
	}
	address := net.JoinHostPort("", port)
	packets, err := listenPackets(address)
	if err != nil {
		return err
	}
	defer packets.conn.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Handler: handler(os.Exit), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- packets.serve() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	return server.Shutdown(last)
}

// handler answers HTTP; exit ends the process with a code.
func handler(exit func(int)) http.Handler {
	var health atomic.Int64
	health.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", answer)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if set := r.FormValue("set"); set != "" {
			status, err := strconv.Atoi(set)
			if err != nil || status < 200 || status > 599 {
				http.Error(w, "set must be a status from 200 to 599", http.StatusBadRequest)
				return
			}
			health.Store(int64(status))
		}
		w.WriteHeader(int(health.Load()))
		fmt.Fprintf(w, "health=%d\n", health.Load())
	})
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /exit", func(w http.ResponseWriter, r *http.Request) {
		code, err := number(r, "code", 255)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text := fmt.Sprintf("exit=%d\n", code)
		// The length makes the answer whole before the process is gone.
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		fmt.Fprint(w, text)
		if err := http.NewResponseController(w).Flush(); err != nil {
			fmt.Fprintln(os.Stderr, "whoami: answer before the exit:", err)
		}
		exit(code)
	})
	return mux
}

func answer(w http.ResponseWriter, r *http.Request) {
	local := ""
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		local = addr.String()
	}
	fmt.Fprint(w, lines(r.RemoteAddr, local))
}

// slow answers after ms milliseconds, or never when the client goes.
func slow(w http.ResponseWriter, r *http.Request) {
	ms, err := number(r, "ms", int(maxWait/time.Millisecond))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		answer(w, r)
	case <-r.Context().Done():
	}
}

// number reads a whole number from 0 to most from the query, 0 when absent.
func number(r *http.Request, name string, most int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s must be a number from 0 to %d", name, most)
	}
	return n, nil
}
