package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestIPv6OfTheKernel: what is switched off is told by the name of its switch.
func TestIPv6OfTheKernel(t *testing.T) {
	if none, outside := ipv6Of(filepath.Join(t.TempDir(), "conf") + "/"); none == "" || outside != "" {
		t.Errorf("a kernel without IPv6: %q, %q", none, outside)
	}
	for _, row := range []struct{ all, byDefault, want string }{
		{"0", "0", ""}, {"1", "1", "net.ipv6.conf.all.disable_ipv6"}, {"0", "1", "net.ipv6.conf.default.disable_ipv6"},
	} {
		dir := t.TempDir() + "/"
		for links, value := range map[string]string{"all": row.all, "default": row.byDefault} {
			if err := os.MkdirAll(dir+links, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+links+"/disable_ipv6", []byte(value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		none, outside := ipv6Of(dir)
		if none != "" || (outside == "") != (row.want == "") || !strings.Contains(outside, row.want) {
			t.Errorf("all %s, default %s: %q, %q", row.all, row.byDefault, none, outside)
		}
	}
}
