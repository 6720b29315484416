// Command image builds a container image of one static program:
//
//	go run ./bench/image -bin bin/whoami -tag shoal/whoami:latest -o bin/whoami.tar
//
// The result is what docker load and Shoal's image load take.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"shoal/node/runtime/archive"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run() error {
	binary := flag.String("bin", "", "the static program")
	tags := flag.String("tag", "", "name of the image, several with commas")
	out := flag.String("o", "", "the archive to write")
	target := flag.String("path", "/whoami", "where the program is in the image; its entry point")
	ports := flag.String("expose", "80/tcp", "ports to expose, several with commas")
	flag.Parse()
	if *binary == "" || *tags == "" || *out == "" || flag.NArg() > 0 {
		return errors.New("-bin, -tag and -o are needed, nothing else")
	}
	program, err := os.ReadFile(*binary)
	if err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	file, err := os.Create(*out)
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	err = archive.Write(file, archive.Image{
		Program: program, Path: *target,
		Tags: strings.Split(*tags, ","), Ports: strings.FieldsFunc(*ports, func(c rune) bool { return c == ',' }),
	})
	return errors.Join(err, file.Close())
}
