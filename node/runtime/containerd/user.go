package containerd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/oci"
	"github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"

	"shoal/node/runtime"
)

// setUser looks the user and the extra groups up in the image's own passwd and
// group files. Root without extra groups needs no look, which saves a mount.
func setUser(ctx context.Context, s *oci.Spec, wish string, groups []string, rootfs []mount.Mount) error {
	if (wish == "" || wish == "0" || wish == "root" || wish == "0:0" || wish == "root:root") && len(groups) == 0 {
		s.Process.User.AdditionalGids = []uint32{0}
		return nil
	}
	// The mount's options are changed below; the container's own must not be.
	looked := slices.Clone(rootfs)
	for i := range looked {
		looked[i].Options = slices.Clone(looked[i].Options)
	}
	err := mount.WithReadonlyTempMount(ctx, looked, func(root string) error {
		return lookUpUser(s, wish, groups, root)
	})
	if err != nil {
		return fmt.Errorf("look the user %q up: %w", wish, err)
	}
	return nil
}

func lookUpUser(s *oci.Spec, wish string, groups []string, root string) error {
	passwd, err := insideFile(root, "/etc/passwd")
	if err != nil {
		return err
	}
	group, err := insideFile(root, "/etc/group")
	if err != nil {
		return err
	}
	found, err := user.GetExecUserPath(wish, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return runtime.Invalid("unable to find user %s: %v", wish, err)
	}
	extra, err := user.GetAdditionalGroupsPath(groups, group)
	if err != nil {
		return runtime.Invalid("unable to find group: %v", err)
	}
	s.Process.User.UID, s.Process.User.GID = uint32(found.Uid), uint32(found.Gid)
	seen := map[int]bool{}
	s.Process.User.AdditionalGids = nil
	for _, gid := range append(append([]int{found.Gid}, found.Sgids...), extra...) {
		if !seen[gid] {
			seen[gid] = true
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, uint32(gid))
		}
	}
	return nil
}

// insideFile is a file of the container's tree, whose links cannot lead out.
func insideFile(root, path string) (string, error) {
	inside, err := fs.RootPath(root, filepath.Clean(path))
	if err != nil {
		return "", fmt.Errorf("find %s in the image: %w", path, err)
	}
	return inside, nil
}
