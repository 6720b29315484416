package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/raftnode"
	"shoal/dns/resolvconf"
	"shoal/dns/server"
)

func TestSplitAddr(t *testing.T) {
	tests := []struct {
		text, host string
		port       int
		good       bool
	}{
		{"", "0.0.0.0", 2377, true},
		{"192.0.2.1", "192.0.2.1", 2377, true},
		{"192.0.2.1:99", "192.0.2.1", 99, true},
		{":99", "0.0.0.0", 99, true},
		{"eth0", "eth0", 2377, true},
		{"eth0:99", "eth0", 99, true},
		{"fd00::1", "fd00::1", 2377, true},
		{"[fd00::1]", "fd00::1", 2377, true},
		{"[fd00::1]:99", "fd00::1", 99, true},
		{"192.0.2.1:", "", 0, false},
		{"192.0.2.1:0", "", 0, false},
		{"192.0.2.1:65536", "", 0, false},
		{"192.0.2.1:http", "", 0, false},
	}
	for _, tt := range tests {
		host, port, err := splitAddr(tt.text, "0.0.0.0")
		if host != tt.host || port != tt.port || (err == nil) != tt.good {
			t.Errorf("%q is %q port %d, %v", tt.text, host, port, err)
		}
	}
}

func TestWithPort(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:2377", "192.0.2.1:99": "192.0.2.1:99", "far": "far:2377",
		"fd00::1": "[fd00::1]:2377", "[fd00::1]": "[fd00::1]:2377", "[fd00::1]:99": "[fd00::1]:99",
	} {
		if got := withPort(addr); got != want {
			t.Errorf("%q is %q, want %q", addr, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	d := &Daemon{}
	tests := []struct {
		name, listen, advertise, dataPath string
		want                              membership
		complaint                         string
	}{
		{"all given", "127.0.0.1:99", "127.0.0.1:98", "127.0.0.1", membership{
			ListenAddr: "127.0.0.1:99", AdvertiseAddr: "127.0.0.1:98", DataPathAddr: "127.0.0.1"}, ""},
		{"the port follows the listener's", "0.0.0.0:99", "127.0.0.1", "", membership{
			ListenAddr: "0.0.0.0:99", AdvertiseAddr: "127.0.0.1:99", DataPathAddr: "127.0.0.1"}, ""},
		{"defaults", "", "127.0.0.1", "", membership{
			ListenAddr: "0.0.0.0:2377", AdvertiseAddr: "127.0.0.1:2377", DataPathAddr: "127.0.0.1"}, ""},
		{"another's address", "", "192.0.2.200", "", membership{}, "address 192.0.2.200 is not one of this node's"},
		{"no such interface", "", "nosuch0", "", membership{}, "interface nosuch0"},
		{"no such listener", "nosuch0:99", "127.0.0.1", "", membership{}, "interface nosuch0"},
		{"a bad port", "0.0.0.0:x", "127.0.0.1", "", membership{}, `listen address "0.0.0.0:x": port "x" is not a number`},
		{"a bad advertised port", "", "127.0.0.1:0", "", membership{}, `advertise address "127.0.0.1:0"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := d.addresses(tt.listen, tt.advertise, tt.dataPath)
			if tt.complaint != "" {
				if api.KindOf(err) != api.Invalid || !strings.Contains(err.Error(), tt.complaint) {
					t.Errorf("error is %v, want one about %s", err, tt.complaint)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestSourceAddr(t *testing.T) {
	addr, err := sourceAddr("127.0.0.1:2377")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := netip.ParseAddr(addr); err != nil || !a.IsLoopback() {
		t.Errorf("the way to the loopback begins at %s", addr)
	}
	if _, err := sourceAddr("nowhere"); api.KindOf(err) != api.Invalid {
		t.Errorf("no port: %v", err)
	}
}

// TestResolvConf: the task's lists before the daemon's, and those before the
// machine's.
func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.53\nsearch corp.example\noptions rotate ndots:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	given := resolvconf.Config{Servers: []netip.Addr{addr("192.0.2.1")}, Search: []string{"node.example"}, Options: []string{"edns0"}}
	for _, tt := range []struct {
		name  string
		given resolvconf.Config
		dns   *swarm.DNSConfig
		file  string // behind the nameserver line
		ask   server.Task
	}{
		{"the machine's", resolvconf.Config{}, nil, "search corp.example\noptions rotate ndots:1\n", server.Task{Whole: true}},
		{"the daemon's", given, nil, "search node.example\noptions edns0 ndots:0\n",
			server.Task{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}},
		{"the task's", given, &swarm.DNSConfig{
			Nameservers: []netip.Addr{addr("127.0.0.11"), addr("192.0.2.2"), addr("fd00::2"), addr("192.0.2.3"), addr("192.0.2.4")},
			Search:      []string{"."}, Options: []string{"ndots:2"}},
			"options ndots:2\n", server.Task{Whole: true, Servers: []netip.AddrPort{
				netip.MustParseAddrPort("192.0.2.2:53"), netip.MustParseAddrPort("[fd00::2]:53"), netip.MustParseAddrPort("192.0.2.3:53")}}},
		{"nobody but itself", given, &swarm.DNSConfig{Nameservers: []netip.Addr{addr("127.0.0.11")}, Options: []string{"ndots:0"}},
			"search node.example\noptions ndots:0\n", server.Task{Inside: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Daemon{cfg: Config{DNS: tt.given}, machine: machineConf{path: path}}
			task := &api.Task{}
			task.Spec.ContainerSpec = &swarm.ContainerSpec{DNSConfig: tt.dns}
			if got := d.taskResolvConf(task); got != "nameserver 127.0.0.11\n"+tt.file {
				t.Errorf("got %q, want %q", got, tt.file)
			}
			if got := d.questions(task); !reflect.DeepEqual(got, tt.ask) {
				t.Errorf("asks %+v, want %+v", got, tt.ask)
			}
		})
	}
	d := &Daemon{machine: machineConf{path: path + " that is not there"}}
	if got := d.taskResolvConf(&api.Task{}); got != "nameserver 127.0.0.11\noptions ndots:0\n" {
		t.Errorf("without a file and a container: %q", got)
	}
}

// TestResolvConfInTheNodesOwnNetwork is the machine's file to the letter, unless
// somebody asks for something else.
func TestResolvConfInTheNodesOwnNetwork(t *testing.T) {
	const text = "# by hand\nnameserver 127.0.0.53\nsearch corp.example\noptions edns0 trust-ad\n"
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{machine: machineConf{path: path}}
	task := &api.Task{}
	task.NetworksAttachments = []swarm.NetworkAttachment{{Network: api.NodeNetwork(api.NetworkHost).Network}}
	task.Spec.ContainerSpec = &swarm.ContainerSpec{}
	if got := d.taskResolvConf(task); got != text {
		t.Errorf("got %q", got)
	}
	task.Spec.ContainerSpec.DNSConfig = &swarm.DNSConfig{Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	if got := d.taskResolvConf(task); got != "nameserver 192.0.2.2\nsearch corp.example\noptions edns0 trust-ad\n" {
		t.Errorf("with a server of its own: %q", got)
	}
}

// TestNodeNetworks has the ids that services are put on them by.
func TestNodeNetworks(t *testing.T) {
	d := &Daemon{}
	for _, n := range (localNetworks{d}).List() {
		if known := api.NodeNetwork(n.Name); n.Name != "bridge" && (known == nil || known.ID != n.ID || known.Spec.DriverConfiguration.Name != n.Driver) {
			t.Errorf("%s: listed as %s of driver %s", n.Name, n.ID, n.Driver)
		}
	}
}

func TestMembershipFile(t *testing.T) {
	d := &Daemon{cfg: Config{StateDir: t.TempDir()}}
	if m, err := d.loadMembership(); m != nil || err != nil {
		t.Fatalf("a new node is member of %+v, %v", m, err)
	}
	want := &membership{
		NodeID: "n1", Role: swarm.NodeRoleManager, ListenAddr: "0.0.0.0:2377", AdvertiseAddr: "192.0.2.1:2377",
		DataPathAddr: "192.0.2.1", Managers: []string{"192.0.2.1:2377"}, Epoch: 3,
	}
	for range 2 {
		if err := d.saveMembership(want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.loadMembership(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, err)
	}
	if st, err := os.Stat(d.path(membershipFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", st, err)
	}
	for _, p := range []string{"raft", "agent", "images", "volumes"} {
		if err := os.MkdirAll(filepath.Join(d.cfg.StateDir, p, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.forget(); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(d.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, []string{"images", "volumes"}) {
		t.Errorf("after forgetting the cluster there is %q", left)
	}
}

func FuzzLoadMembership(f *testing.F) {
	f.Add([]byte(`{"NodeID":"n1","Role":"worker"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"NodeID":"n1","Role":"king"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		d := &Daemon{cfg: Config{StateDir: t.TempDir()}}
		if err := os.WriteFile(d.path(membershipFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := d.loadMembership()
		if err == nil && (m.NodeID == "" || m.Role != swarm.NodeRoleManager && m.Role != swarm.NodeRoleWorker) {
			t.Errorf("took %+v", m)
		}
	})
}

func TestLeaveWarning(t *testing.T) {
	const start = "You are attempting to leave the swarm on a node that is participating as a manager. "
	members := func(reachable, silent int) (out []raftnode.Member) {
		for i := range reachable + silent {
			out = append(out, raftnode.Member{Reachable: i < reachable})
		}
		return out
	}
	tests := []struct {
		name              string
		reachable, silent int
		want              string
	}{
		{"the last one", 1, 0, start + "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "},
		{"of two", 2, 0, start + "Removing this node leaves 1 managers out of 2. Without a Raft quorum"},
		{"of three", 3, 0, start + "Demote it first"},
		{"of three with one silent", 2, 1, start + "Removing this node leaves 1 managers out of 3. Without a Raft quorum"},
		{"of five with one silent", 4, 1, start + "Demote it first"},
		{"of five with two silent", 3, 2, start + "Removing this node leaves 2 managers out of 5. Without a Raft quorum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := leaveWarning(members(tt.reachable, tt.silent))
			if api.KindOf(err) != api.Unavailable || !strings.HasPrefix(err.Error(), tt.want) || !strings.Contains(err.Error(), "`--force`") || strings.Contains(err.Error(), "force-new") {
				t.Errorf("says %v", err)
			}
		})
	}
}

func TestOneChangeAtATime(t *testing.T) {
	d := &Daemon{cfg: Config{StateDir: t.TempDir()}}
	if err := d.Leave(t.Context(), true); err == nil || err.Error() != "This node is not part of a swarm" {
		t.Errorf("leaves nothing: %v", err)
	}
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"join": d.begin(), "leave": d.Leave(t.Context(), true)} {
		if api.KindOf(err) != api.Unavailable || !strings.Contains(err.Error(), "joining or leaving") {
			t.Errorf("%s in the middle of another: %v", what, err)
		}
	}
	d.end(&member{})
	if err := d.begin(); err == nil || !strings.HasPrefix(err.Error(), "This node is already part of a swarm.") {
		t.Errorf("joins twice: %v", err)
	}
}
