package field

import (
	"path/filepath"
	"strings"
	"unicode"
)

// Absolute returns a path as it is meant in a configuration in the folder dir; "" stays "".
func Absolute(dir, path string) string {
	switch {
	case path == "":
		return ""
	case !filepath.IsAbs(path):
		return filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// ValidateFile reports what is wrong with the path and the mode of a file that holds a token. Mode
// 0 stands for the default.
func ValidateFile(p Problems, path string, mode Mode) {
	at := p.At("path")
	switch {
	case path == "":
		at.Errorf("is missing")
	case strings.HasPrefix(path, "~"):
		at.Errorf("~ is not expanded: write the whole path")
	case strings.HasSuffix(path, "/") || filepath.Base(path) == "." || filepath.Base(path) == "..":
		at.Errorf("%q is a folder: name a file in it", path)
	case strings.ContainsFunc(path, unicode.IsControl):
		at.Errorf("holds a control character")
	}
	if mode == 0 {
		return
	}
	at = p.At("mode")
	switch {
	case mode&0o400 == 0:
		at.Errorf("%s lets not even the owner read the file", mode)
	case mode&0o002 != 0:
		at.Errorf("%s lets everybody change the file", mode)
	case mode&0o004 != 0:
		at.Warnf("%s lets everybody on the machine read the token", mode)
	}
}

// FileTraits are what all who write to a file must agree on.
func FileTraits(mode Mode, owner, group string) string {
	traits := "mode " + mode.String()
	if owner != "" {
		traits += ", owner " + owner
	}
	if group != "" {
		traits += ", group " + group
	}
	return traits
}
