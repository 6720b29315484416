package runtime

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/signal"
)

// idPattern is what an id may look like; it becomes a file name and a cgroup.
var idPattern = regexp.MustCompile(`^[0-9a-zA-Z][0-9a-zA-Z_.-]{0,75}$`)

// ValidID reports whether id can name a container.
func ValidID(id string) bool { return idPattern.MatchString(id) }

// Validate says why a container cannot be made as it is wished, in Docker's
// words where Docker has some. Every runtime asks it before it makes anything.
func Validate(c Container) error {
	if !ValidID(c.ID) {
		return Invalid("container id %q is not usable", c.ID)
	}
	if c.StopSignal != "" {
		if _, err := ParseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	for _, names := range [][]string{c.CapAdd, c.CapDrop} {
		if _, err := CapabilityNames(names); err != nil {
			return err
		}
	}
	for _, m := range c.Mounts {
		if err := m.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (m Mount) validate() error {
	if !path.IsAbs(m.Target) {
		return Invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Target)
	}
	switch m.Type {
	case "tmpfs":
		return nil
	case "bind":
		if _, err := os.Stat(m.Source); err != nil {
			return Invalid(`invalid mount config for type "bind": bind source path does not exist: %s`, m.Source)
		}
		return nil
	}
	return Invalid("mount type %q of %s is not bind or tmpfs", m.Type, m.Target)
}

// ParseSignal reads a signal's name, with or without SIG, or its number.
func ParseSignal(name string) (syscall.Signal, error) {
	s, err := signal.ParseSignal(name)
	if err != nil {
		return 0, Invalid("invalid signal: %s", name)
	}
	return s, nil
}

// AllCapabilities stands for every capability in CapAdd and CapDrop.
const AllCapabilities = "ALL"

// capabilityNames are those of linux/capability.h up to kernel 6.1.
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// CapabilityNames gives names the form CAP_NAME, or ALL, and refuses unknown ones.
func CapabilityNames(names []string) ([]string, error) {
	full := make([]string, 0, len(names))
	for _, name := range names {
		bare := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		switch {
		case bare == AllCapabilities:
			full = append(full, AllCapabilities)
		case slices.Contains(capabilityNames, bare):
			full = append(full, "CAP_"+bare)
		default:
			return nil, Invalid("invalid capability: %q", name)
		}
	}
	return full, nil
}
