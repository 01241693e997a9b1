package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"
)

// passphraseVariable holds the passphrase of an encrypted key where there is no terminal to ask on.
const passphraseVariable = "WHEELWRIGHT_KEY_PASSPHRASE"

// sshKey is the key of a file, or the agent's whose public half is in the file; without a file the agent's only one.
// done lets go of the agent.
func (a *app) sshKey(file string) (key ssh.Signer, done func(), err error) {
	done = func() {}
	if file == "" {
		return agentKey(nil, "")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, done, fmt.Errorf("--key: %w", err)
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
		return agentKey(public, file)
	}
	key, err = ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		if err != nil {
			return nil, done, fmt.Errorf("--key %s: %w; want a private key of OpenSSH, or the .pub file of one that the agent has", file, err)
		}
		return key, done, nil
	}
	passphrase, err := a.passphrase(file)
	if err != nil {
		return nil, done, err
	}
	if key, err = ssh.ParsePrivateKeyWithPassphrase(text, passphrase); err != nil {
		return nil, done, fmt.Errorf("--key %s: the passphrase is wrong, or the key is damaged", file)
	}
	return key, done, nil
}

func (a *app) passphrase(file string) ([]byte, error) {
	if text, set := os.LookupEnv(passphraseVariable); set {
		return []byte(text), nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, fmt.Errorf("--key %s is encrypted and there is no terminal to ask on: add it to the agent (ssh-add) and name its .pub file, or set $%s", file, passphraseVariable)
	}
	fmt.Fprintf(a.err, "Passphrase of %s: ", file)
	text, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(a.err)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return text, nil
}

// agentKey is a key of the agent: the one with that public half, or the only one.
func agentKey(public ssh.PublicKey, file string) (key ssh.Signer, done func(), err error) {
	none := func() {}
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, none, errors.New("no key: name one with --key FILE, or start an SSH agent (SSH_AUTH_SOCK is not set)")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, none, fmt.Errorf("ask the SSH agent: %w; name a key with --key FILE", err)
	}
	keys, err := agent.NewClient(conn).Signers()
	if err != nil {
		_ = conn.Close()
		return nil, none, fmt.Errorf("ask the SSH agent for its keys: %w", err)
	}
	done = func() { _ = conn.Close() }
	var names []string
	for _, k := range keys {
		if public != nil && bytes.Equal(k.PublicKey().Marshal(), public.Marshal()) {
			return k, done, nil
		}
		names = append(names, ssh.FingerprintSHA256(k.PublicKey()))
	}
	switch {
	case public != nil:
		err = fmt.Errorf("--key %s: the SSH agent does not have %s; add it with ssh-add", file, ssh.FingerprintSHA256(public))
	case len(keys) == 1:
		return keys[0], done, nil
	case len(keys) == 0:
		err = errors.New("the SSH agent has no keys: add one with ssh-add, or name a file with --key FILE")
	default:
		err = fmt.Errorf("the SSH agent has %d keys (%s): say which, with --key FILE.pub", len(keys), strings.Join(names, ", "))
	}
	done()
	return nil, none, err
}
