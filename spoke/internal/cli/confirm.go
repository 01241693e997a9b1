package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
)

// confirm asks on a terminal and wants --yes elsewhere.
func (a *app) confirm(what string, yes bool) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return exitcode.With(exitcode.Usage, fmt.Errorf("about to %s: add --yes, since there is no terminal to ask on", what))
	}
	fmt.Fprintf(a.err, "About to %s. Go on? [y/N] ", what)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
		return exitcode.With(exitcode.Failed, errors.New("not done: nothing was changed"))
	}
	return nil
}
