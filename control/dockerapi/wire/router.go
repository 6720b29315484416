package wire

import (
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"shoal/control/api"
)

// Server is the value of the Server header. Clients show it and some parse it.
const Server = "Docker/28.2.2 (linux)"

// Handler answers one route. An error that it returns before it wrote anything
// becomes the answer; vars holds the parts of the path that the pattern names.
type Handler func(w http.ResponseWriter, r *http.Request, vars map[string]string) error

// Router sends requests to handlers by method and path, with or without a
// version prefix. A route of Docker's that it has no handler for is refused with
// a sentence that says so (501); any other is not found. Routes are added before
// it serves; serving is safe from many goroutines.
type Router struct {
	log    *slog.Logger
	exact  map[string]Handler
	routes []route
}

type route struct {
	method  string
	pattern string
	path    *regexp.Regexp
	vars    []string
	handler Handler
}

// NewRouter returns a router without routes. Answers of status 500 are logged
// to log, and at debug level errors of handlers that had already begun to answer.
func NewRouter(log *slog.Logger) *Router {
	return &Router{log: log, exact: map[string]Handler{}}
}

// Handle adds a route. In the pattern {name} stands for one part of a path and
// {name...} for one or more, slashes included. A pattern without variables wins
// over one with; otherwise the route added first wins. Adding the same method
// and pattern twice is a mistake of the program and panics.
func (rt *Router) Handle(method, pattern string, h Handler) {
	if !strings.Contains(pattern, "{") {
		key := method + " " + pattern
		if _, taken := rt.exact[key]; taken {
			panic("wire: route added twice: " + key)
		}
		rt.exact[key] = h
		return
	}
	for _, other := range rt.routes {
		if other.method == method && other.pattern == pattern {
			panic("wire: route added twice: " + method + " " + pattern)
		}
	}
	path, vars := compile(pattern)
	rt.routes = append(rt.routes, route{method, pattern, path, vars, h})
}

// compile turns a pattern into an anchored expression and the names of its groups.
func compile(pattern string) (*regexp.Regexp, []string) {
	var expr strings.Builder
	var vars []string
	for rest := pattern; rest != ""; {
		literal, after, ok := strings.Cut(rest, "{")
		expr.WriteString(regexp.QuoteMeta(literal))
		if !ok {
			break
		}
		name, tail, ok := strings.Cut(after, "}")
		if !ok {
			panic("wire: pattern without closing brace: " + pattern)
		}
		group := "([^/]+)"
		if long, isLong := strings.CutSuffix(name, "..."); isLong {
			name, group = long, "(.+)"
		}
		expr.WriteString(group)
		vars = append(vars, name)
		rest = tail
	}
	return regexp.MustCompile("^" + expr.String() + "$"), vars
}

// ServeHTTP implements http.Handler.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", Server)
	h.Set("Api-Version", Max.String())
	h.Set("Ostype", "linux")
	path, version, err := splitVersion(r.URL.Path)
	if err != nil {
		WriteError(w, err)
		return
	}
	handler, vars := rt.find(r.Method, path)
	if handler == nil {
		handler, vars = absentRoutes().find(r.Method, path)
	}
	if handler == nil {
		WriteError(w, api.Errorf(api.NotFound, "page not found"))
		return
	}
	rt.serve(handler, w, WithVersion(r, version), vars)
}

func (rt *Router) serve(handler Handler, w http.ResponseWriter, r *http.Request, vars map[string]string) {
	tracked := &tracker{ResponseWriter: w}
	err := handler(tracked, r, vars)
	switch {
	case err == nil && !tracked.begun:
		// As net/http does, but before the body's content type is guessed.
		w.WriteHeader(http.StatusOK)
	case err != nil && tracked.begun:
		rt.log.Debug("answer broken off", "method", r.Method, "path", r.URL.Path, "err", err)
	case err != nil:
		if StatusOf(err) == http.StatusInternalServerError {
			rt.log.Info("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
		WriteError(w, err)
	}
}

func (rt *Router) find(method, path string) (Handler, map[string]string) {
	if h, ok := rt.exact[method+" "+path]; ok {
		return h, nil
	}
	for _, route := range rt.routes {
		if route.method != method {
			continue
		}
		parts := route.path.FindStringSubmatch(path)
		if parts == nil {
			continue
		}
		vars := make(map[string]string, len(route.vars))
		for i, name := range route.vars {
			vars[name] = parts[i+1]
		}
		return route.handler, vars
	}
	return nil, nil
}

// Routes lists what is served, as "METHOD pattern", unordered.
func (rt *Router) Routes() []string {
	var all []string
	for key := range rt.exact {
		all = append(all, key)
	}
	for _, route := range rt.routes {
		all = append(all, fmt.Sprintf("%s %s", route.method, route.pattern))
	}
	return all
}

// tracker remembers whether an answer has begun, so that an error after that is
// not written into the middle of it.
type tracker struct {
	http.ResponseWriter
	begun bool
}

func (t *tracker) WriteHeader(code int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(code)
}

func (t *tracker) Write(b []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }
