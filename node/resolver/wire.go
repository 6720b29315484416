package resolver

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"shoal/dns/server"
	"shoal/dns/zone"
)

// Protocol is the version of what the daemon and the process say to each other.
// Hello, sockets, table and quit stay as they are in all versions: with them the
// next version takes over.
const Protocol = 1

// Operations of the daemon.
const (
	opHello   = "hello"   // who are you, and what do you hold
	opWatch   = "watch"   // keep the connection and say nothing: its end is the process's
	opServe   = "serve"   // answer for a task; with its two sockets when they are new
	opDrop    = "drop"    // close a task's sockets
	opSockets = "sockets" // give me a task's two sockets, and keep them
	opTable   = "table"   // give me the names, in as many parts as it takes
	opNames   = "names"   // a part of what changed; the last part makes it count
	opCount   = "count"   // give me the counters
	opQuit    = "quit"    // leave the sockets to others, answer what was taken, end
)

// request is one line of the daemon, behind its length.
type request struct {
	Op      string
	Task    *Task         `json:",omitempty"` // serve
	ID      string        `json:",omitempty"` // drop, sockets
	Machine string        `json:",omitempty"` // hello: the machine's resolv.conf
	Changes []zone.Change `json:",omitempty"` // names
	More    bool          `json:",omitempty"` // names: further parts follow
	From    int           `json:",omitempty"` // table: how many networks were given already
}

// Task is a task that has a name server.
type Task struct {
	ID string
	// Namespace is the path of the task's network namespace.
	Namespace string
	server.Task
}

// reply is what the process says to a request.
type reply struct {
	Error    string         `json:",omitempty"`
	Protocol int            `json:",omitempty"` // hello
	Build    string         `json:",omitempty"` // hello
	Pid      int            `json:",omitempty"` // hello
	Tasks    []Task         `json:",omitempty"` // hello
	Networks []zone.Network `json:",omitempty"` // table
	More     bool           `json:",omitempty"` // table: further parts follow
	Counts   *Counts        `json:",omitempty"` // count
}

// Counts are what the process has done since its start, and what it holds.
type Counts struct {
	server.Counts
	Tasks, Names int
}

// socketsOfTask is how many descriptors go with a task: UDP and TCP, in this order.
const socketsOfTask = 2

// maxFrame bounds a message, bytes.
const maxFrame = 64 << 20

// wire is one end of a connection.
type wire struct{ *net.UnixConn }

// write sends a message and descriptors with its first byte. The descriptors stay
// the caller's.
func (w wire) write(message any, fds ...int) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	frame := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := w.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = w.Write(frame[n:])
	}
	return err
}

// read receives a message and the descriptors with it, which are the caller's
// also after an error.
func (w wire) read(message any) (fds []int, err error) {
	var size [4]byte
	control := make([]byte, unix.CmsgSpace(socketsOfTask*4))
	for got := 0; got < len(size); {
		n, oobn, flags, _, err := w.ReadMsgUnix(size[got:], control)
		received, rightsErr := rights(control[:oobn])
		fds = append(fds, received...)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if flags&unix.MSG_CTRUNC != 0 {
			rightsErr = errors.New("more descriptors than a task has")
		}
		if err = errors.Join(err, rightsErr); err != nil {
			return fds, err
		}
		got += n
	}
	length := binary.BigEndian.Uint32(size[:])
	if length > maxFrame {
		return fds, fmt.Errorf("a message of %d bytes", length)
	}
	return fds, json.NewDecoder(io.LimitReader(w, int64(length))).Decode(message)
}

// rights are the descriptors of a control message.
func rights(control []byte) (fds []int, err error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, fmt.Errorf("descriptors: %w", err)
		}
		fds = append(fds, some...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// closeAll closes descriptors; what they were is used by others.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// peer is the process and user at the other end, as the kernel knows them.
func (w wire) peer() (*unix.Ucred, error) {
	raw, err := w.SyscallConn()
	if err != nil {
		return nil, err
	}
	var who *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(err, failed)
}
