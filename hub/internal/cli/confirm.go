package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
)

// mayAsk: what is confirmed by --yes, or there is a terminal to ask on.
func mayAsk(what string, yes bool) error {
	if yes || term.IsTerminal(int(os.Stdin.Fd())) {
		return nil
	}
	return exitcode.With(exitcode.Usage, fmt.Errorf("about to %s: add --yes, since there is no terminal to ask on", what))
}

// confirm asks on a terminal and wants --yes elsewhere.
func (a *app) confirm(what string, yes bool) error {
	if err := mayAsk(what, yes); err != nil || yes {
		return err
	}
	fmt.Fprintf(a.err, "About to %s. Go on? [y/N] ", what)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "y" && s != "yes" {
		return exitcode.With(exitcode.Failed, fmt.Errorf("not done: nothing was changed"))
	}
	return nil
}
