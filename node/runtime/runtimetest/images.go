package runtimetest

import (
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"shoal/control/api"
	"shoal/node/runtime"
)

func testVersion(c *Case) {
	version, err := c.Runtime.Version(c.Ctx())
	c.must(err)
	if version == "" {
		c.Error("no version")
	}
}

func testImages(c *Case) {
	image, err := c.Runtime.Image(c.Ctx(), Image)
	c.must(err)
	if image.Name != "docker.io/"+Image || len(image.ID) != 71 || len(image.Digest) != 71 || image.Size <= 0 {
		c.Errorf("image %+v", image)
	}
	if !slices.Equal(image.Entrypoint, []string{Program}) || !slices.Equal(image.ExposedPorts, []string{"80/tcp"}) {
		c.Errorf("image's settings %+v", image)
	}
	if h := image.Healthcheck; h == nil || len(h.Test) != 4 || h.Interval != time.Second || h.Retries != 2 || !slices.Equal(image.Shell, []string{"/bin/ash", "-c"}) {
		c.Errorf("image's health check %+v, shell %q", h, image.Shell)
	}
	for _, ref := range []string{"docker.io/" + Image, "shoal/runtimetest", image.ID, image.ID[7:19], Image + "@" + image.Digest} {
		again, err := c.Runtime.EnsureImage(c.Ctx(), ref, "")
		if err != nil || again.ID != image.ID {
			c.Errorf("%s: %+v %v", ref, again, err)
		}
	}
	all, err := c.Runtime.Images(c.Ctx())
	c.must(err)
	if !slices.ContainsFunc(all, func(i runtime.Image) bool { return i.Name == image.Name }) {
		c.Errorf("images %+v", all)
	}
}

func testTags(c *Case) {
	const other = "registry.test:5000/other:v1"
	c.must(c.Runtime.Tag(c.Ctx(), Image, other))
	c.must(c.Runtime.Tag(c.Ctx(), Image, other))
	one, err := c.Runtime.Image(c.Ctx(), Image)
	c.must(err)
	two, err := c.Runtime.Image(c.Ctx(), other)
	c.must(err)
	if one.ID != two.ID || two.Name != other {
		c.Errorf("tagged %+v and %+v", one, two)
	}
	c.must(c.Runtime.RemoveImage(c.Ctx(), other))
	c.refused(c.Runtime.RemoveImage(c.Ctx(), other), errdefs.ErrNotFound, api.NotFound)
	if _, err := c.Runtime.Image(c.Ctx(), Image); err != nil {
		c.Errorf("the first name is gone with the other: %v", err)
	}
	c.refused(c.Runtime.Tag(c.Ctx(), "nope", "x:1"), errdefs.ErrNotFound, api.NotFound)
	c.refused(c.Runtime.Tag(c.Ctx(), Image, "UPPER CASE"), errdefs.ErrInvalidArgument, api.Invalid)
}

func testMissingImage(c *Case) {
	// A port of the loopback that nobody listens on cannot be reached. Behind
	// Docker's words stands why.
	for ref, text := range map[string]string{
		"127.0.0.1:1/nope":     "No such image: 127.0.0.1:1/nope:latest: ",
		"127.0.0.1:1/nope:two": "No such image: 127.0.0.1:1/nope:two: ",
	} {
		_, err := c.Runtime.EnsureImage(c.Ctx(), ref, "")
		c.refused(err, errdefs.ErrNotFound, api.NotFound)
		if err == nil || !strings.HasPrefix(err.Error(), text) || len(err.Error()) == len(text) {
			c.Errorf("error %q, not %q and why", err, text)
		}
	}
	_, err := c.Runtime.Image(c.Ctx(), "nope")
	if c.refused(err, errdefs.ErrNotFound, api.NotFound); err.Error() != "No such image: nope:latest" {
		c.Errorf("error %q", err)
	}
	spec := c.Container("run")
	spec.Image = "nope"
	c.refused(c.Runtime.Create(c.Ctx(), spec), errdefs.ErrNotFound, api.NotFound)
}

func testImageInUse(c *Case) {
	spec := c.Container("run")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	c.refused(c.Runtime.RemoveImage(c.Ctx(), Image), errdefs.ErrFailedPrecondition, api.Conflict)
}
