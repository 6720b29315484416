//go:build lab

package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// run runs a child in the calling thread's network namespace, and kills it once
// it has made that many changes of the kernel; 0 lets it go on to its end. It
// returns how many changes it saw. The thread must be locked: tracing belongs to it.
func run(phase, dir string, killAfter int) (changes int, killed bool, err error) {
	log, err := os.OpenFile(dir+"/child.log", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, false, err
	}
	defer log.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"child"}, &syscall.ProcAttr{
		Env:   append(os.Environ(), childVariable+"="+phase, childVariable+"_DIR="+dir),
		Files: []uintptr{0, log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, false, err
	}
	t := &tracer{pid: pid, inside: map[int]bool{}, killAfter: killAfter}
	status, err := t.follow()
	if err != nil {
		return t.changes, t.killed, err
	}
	if !t.killed && status != 0 {
		said, _ := os.ReadFile(log.Name())
		return t.changes, false, fmt.Errorf("%s ended with status %d: %s", phase, status, said)
	}
	return t.changes, t.killed, nil
}

// tracer follows a process and its threads from system call to system call.
type tracer struct {
	pid       int
	inside    map[int]bool // threads inside a call that changes the kernel
	known     map[int]bool
	changes   int
	killAfter int
	killed    bool
}

// follow returns the exit status of the process.
func (t *tracer) follow() (status int, err error) {
	t.known = map[int]bool{}
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the child: %w", err)
		case ws.Exited() || ws.Signaled():
			if tid == t.pid {
				return ws.ExitStatus(), nil
			}
			continue
		case !ws.Stopped():
			continue
		}
		if err := t.step(tid, ws); err != nil && !errors.Is(err, unix.ESRCH) { // it was killed meanwhile
			return 0, err
		}
	}
}

// stopAtCall is how a stop at a system call differs from a signal (PTRACE_O_TRACESYSGOOD).
const stopAtCall = unix.SIGTRAP | 0x80

func (t *tracer) step(tid int, ws unix.WaitStatus) error {
	deliver := 0
	switch signal := ws.StopSignal(); {
	case tid == t.pid && !t.known[tid]:
		if err := unix.PtraceSetOptions(tid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
			return err
		}
	case signal == stopAtCall:
		if err := t.call(tid); err != nil {
			return err
		}
	case signal != unix.SIGTRAP && signal != unix.SIGSTOP:
		deliver = int(signal)
	}
	t.known[tid] = true
	return unix.PtraceSyscall(tid, deliver)
}

// call notes when a change begins, and counts it when it is done.
func (t *tracer) call(tid int) error {
	if t.inside[tid] {
		t.inside[tid] = false
		t.changes++
		if t.changes == t.killAfter {
			t.killed = true
			return unix.Kill(t.pid, unix.SIGKILL)
		}
		return nil
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	if int64(regs.Rax) != -int64(unix.ENOSYS) { // the end of a call that changes nothing
		return nil
	}
	t.inside[tid] = t.changesKernel(tid, regs)
	return nil
}

// changesKernel says whether a call that begins changes the kernel's network, or
// the files that stand for it.
func (t *tracer) changesKernel(tid int, regs unix.PtraceRegs) bool {
	switch regs.Orig_rax {
	case unix.SYS_UNSHARE, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return true
	case unix.SYS_WRITE:
		name, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, regs.Rdi))
		return strings.HasPrefix(name, "/proc/sys/") || strings.HasSuffix(name, ".tmp")
	case unix.SYS_SENDTO:
		return changesNetlink(peek(tid, uintptr(regs.Rsi), 8))
	case unix.SYS_SENDMSG:
		header := peek(tid, uintptr(regs.Rsi), 24)
		if len(header) < 24 {
			return false
		}
		vector := peek(tid, uintptr(binary.NativeEndian.Uint64(header[16:])), 8)
		if len(vector) < 8 {
			return false
		}
		return changesNetlink(peek(tid, uintptr(binary.NativeEndian.Uint64(vector)), 8))
	}
	return false
}

func peek(tid int, at uintptr, n int) []byte {
	b := make([]byte, n)
	got, err := unix.PtracePeekData(tid, at, b)
	if err != nil {
		return nil
	}
	return b[:got]
}

// changesNetlink reads the header of a netlink message: a batch of nftables (its
// single messages only ask), or a change of rtnetlink or of tracked flows.
func changesNetlink(header []byte) bool {
	if len(header) < 8 {
		return false
	}
	kind := binary.NativeEndian.Uint16(header[4:])
	switch subsystem := kind >> 8; {
	case kind >= unix.RTM_BASE && kind < unix.RTM_MAX:
		return (kind-unix.RTM_BASE)&3 != 2 // RTM_GET…
	case subsystem == unix.NFNL_SUBSYS_CTNETLINK:
		return kind&0xff == 0 || kind&0xff == 2 // new, delete
	}
	return false
}
