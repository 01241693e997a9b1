// Package exitcode is what both command lines tell the shell: the codes are API. It prints nothing.
package exitcode

import (
	"errors"
	"fmt"
)

const (
	OK       = 0 // done and healthy
	Failed   = 1 // failed, unhealthy or different
	Usage    = 2 // wrong words, or the other side could not be reached
	TimedOut = 3
	Waiting  = 4 // for an approval
)

// Error carries a code up to main. A nil Err exits silently: what there was to say is printed.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Silent ends the program with code and prints nothing more.
func Silent(code int) error { return &Error{Code: code} }

// With gives err a code; nil stays nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Err: err}
}

// Of is the code that err asks for: 0 for nil, 1 for an error that asks for none.
func Of(err error) int {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Failed
}

// Message is what to print for err; empty for a silent one.
func Message(err error) string {
	var e *Error
	if err == nil || (errors.As(err, &e) && e.Err == nil) {
		return ""
	}
	return err.Error()
}
