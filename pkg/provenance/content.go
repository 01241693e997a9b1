package provenance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// ContentSHA256 is the value of a Bundle-SHA256 trailer for these files: the SHA-256, in hexadecimal, of one
// line for each file, in the byte order of their paths,
//
//	MODE SP HEX SP PATH LF
//
// with the mode as git has it (100644 or 100755) and the SHA-256 of the file's content. No path holds a line
// end, so that different files never have the same lines.
//
// It is not the digest of the whole bundle: that one covers the tag object, and no tag can hold the
// digest of itself.
func ContentSHA256(files []File) (string, error) {
	if !slices.IsSortedFunc(files, byPath) {
		files = slices.Clone(files)
		slices.SortFunc(files, byPath)
	}
	sums := make([][sha256.Size]byte, len(files))
	err := each(len(files), func() func(int) error {
		return func(i int) error {
			sums[i] = sha256.Sum256(files[i].Data)
			return nil
		}
	})
	if err != nil {
		return "", err
	}
	all := sha256.New()
	var line []byte
	for i, f := range files {
		if err := CheckPath(f.Path); err != nil {
			return "", err
		}
		if i > 0 && files[i-1].Path == f.Path {
			return "", fmt.Errorf("%q is there twice", f.Path)
		}
		mode := ModeFile
		if f.Executable {
			mode = ModeExecutable
		}
		line = append(hex.AppendEncode(append(append(line[:0], mode...), ' '), sums[i][:]), ' ')
		all.Write(append(append(line, f.Path...), '\n'))
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// CheckContent tells whether the files are those of a tag's Bundle-SHA256 trailer.
func CheckContent(want string, files []File) error {
	got, err := ContentSHA256(files)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the tag's %s is %s, the files have %s: the release is not what was signed; "+
			"write the value that the validation prints into the tag's message", trailerContent, want, got)
	}
	return nil
}
