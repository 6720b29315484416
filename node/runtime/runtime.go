// Package runtime says, in Shoal's words, what it takes to run a task: images,
// containers, their exit, their output. The containerd sub-package does it for
// real; the fake one does it for tests and refuses what the real one refuses.
//
// The package never touches networks: a container is given the path of a
// network namespace that others wired.
package runtime

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Runtime runs containers. Every method is idempotent unless it says otherwise,
// and names the container or image in its errors. ErrNotFound and ErrExists
// (package errdefs of containerd) are wrapped where they apply.
type Runtime interface {
	// Version is the runtime's name and version, for info.
	Version(ctx context.Context) (string, error)

	// EnsureImage makes the image present: the local one when the reference
	// is pinned or the registry cannot be reached, else a pull. auth is the
	// registry auth header value (base64url JSON) or "".
	EnsureImage(ctx context.Context, ref, auth string) (Image, error)
	Images(ctx context.Context) ([]Image, error)
	Image(ctx context.Context, ref string) (Image, error)
	RemoveImage(ctx context.Context, ref string) error
	// Pull fetches from the registry; progress gets JSON lines as docker pull shows them.
	Pull(ctx context.Context, ref, auth string, progress io.Writer) (Image, error)
	// Load imports a docker-archive or OCI tar stream and returns the names it brought.
	Load(ctx context.Context, tar io.Reader) ([]string, error)
	Tag(ctx context.Context, ref, newRef string) error

	// Create makes the container without starting it.
	Create(ctx context.Context, c Container) error
	// Start starts it and returns the pid of its first process.
	Start(ctx context.Context, id string) (pid int, err error)
	// Stop sends the stop signal, waits for the grace period, then kills.
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id, signal string) error
	// Remove deletes the container and its snapshot; running ones are killed.
	Remove(ctx context.Context, id string) error
	List(ctx context.Context) ([]Status, error)
	Get(ctx context.Context, id string) (Status, error)
	// Wait returns when the container has exited.
	Wait(ctx context.Context, id string) (Status, error)
	// Exec runs a program inside a running container as the container's own are
	// run (user, environment, directory, limits) and returns how it ended, each
	// time anew. When ctx ends first the program is killed and the error is
	// ctx's. A container that does not run is ErrFailedPrecondition.
	Exec(ctx context.Context, id string, args []string) (ExecResult, error)

	// Attach connects to the streams of a running container, from now on, or of a
	// created one, from its first byte on. What is attached and does not read holds
	// the container up. A container that has ended is ErrFailedPrecondition.
	Attach(ctx context.Context, id string) (Attached, error)
	// Resize sets the size of a running container's terminal, in characters.
	Resize(ctx context.Context, id string, width, height uint32) error
	// Renew makes a created container of one that has ended, as c says, with the
	// file system that it has.
	Renew(ctx context.Context, c Container) error
}

// Attached is a connection to a container's streams. Reading and writing may go on
// side by side.
type Attached interface {
	// Next waits for output; io.EOF comes after the last, and for a container that
	// is removed before it has run.
	Next() (OutputStream, []byte, error)
	// Write gives the container input, once it runs. Without open standard input it
	// is an error.
	Write(p []byte) (int, error)
	// CloseStdin ends the input for good, once the container has read what it was
	// given.
	CloseStdin(ctx context.Context) error
	// Close ends the connection, and waits in Next and Write. The container goes on.
	Close() error
}

// OutputStream is one of the two that a process writes to.
type OutputStream byte

// The streams. What has a terminal writes to Stdout only.
const (
	Stdout OutputStream = iota + 1
	Stderr
)

// ExecOutputMax bounds what is kept of the output of an Exec, bytes.
const ExecOutputMax = 4096

// ExecResult is how a program ended that Exec ran.
type ExecResult struct {
	ExitCode int
	// Output is the beginning of what it wrote, to both streams.
	Output string
}

// Image is an image that is present.
type Image struct {
	Name                 string // normalised: docker.io/shoal/whoami:latest
	ID                   string // sha256:… of the config
	Digest               string // sha256:… of the manifest
	Size                 int64  // bytes
	Created              time.Time
	Env, Cmd, Entrypoint []string
	User, WorkingDir     string
	StopSignal           string
	// ExposedPorts are like "80/tcp".
	ExposedPorts []string
	Labels       map[string]string
	// Healthcheck is the image's HEALTHCHECK, nil without one, and Shell what its
	// commands are run by, "" for /bin/sh -c.
	Healthcheck *container.HealthConfig
	Shell       []string
}

// Container is what to run.
type Container struct {
	ID     string // 64 hex
	Name   string // web.3.<taskid>
	Image  string
	Labels map[string]string
	// Entrypoint replaces the image's (and drops its Cmd) when not empty;
	// Args replaces the image's Cmd when not empty.
	Entrypoint, Args []string
	Env              []string // KEY=value, over the image's
	WorkingDir, User string
	Hostname         string
	Groups           []string
	TTY, OpenStdin   bool
	ReadOnly         bool
	Init             bool
	StopSignal       string // "" is the image's, or SIGTERM
	Mounts           []Mount
	Limits           Limits
	CapAdd, CapDrop  []string
	Sysctls          map[string]string
	Ulimits          []Ulimit
	OomScoreAdj      int
	// NetNS is the path of the network namespace, "" for the node's own.
	NetNS string
	// LogPath is the file that output goes to, one JSON object a line as
	// Docker's json-file has them.
	LogPath string
	// ResolvConf, Hosts and HostnameFile are mounted over /etc's.
	ResolvConf, Hosts, HostnameFile string
}

// Mount is one mount of a container.
type Mount struct {
	Type     string // bind or tmpfs
	Source   string
	Target   string
	ReadOnly bool
	// Size limits a tmpfs, bytes; 0 is no limit. Mode is its permission bits.
	Size        int64
	Mode        uint32
	Propagation string
}

// Limits bound a container. Zero is unlimited.
type Limits struct {
	NanoCPUs    int64 // 1e-9 CPUs
	MemoryBytes int64
	Pids        int64
}

// Ulimit is one resource limit.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Status is what is known of a container.
type Status struct {
	ID, Name, Image                  string
	Labels                           map[string]string
	State                            State
	PID                              int
	ExitCode                         int
	OOMKilled                        bool
	CreatedAt, StartedAt, FinishedAt time.Time
	LogPath                          string
}

// State is where a container is in its life.
type State string

// The states.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)
