package agent

import "github.com/wheelwright-dev/wheelwright/pkg/redact"

const longest = 500 // characters of a message: room for the three or four things that a dry run says of an old release

// oneLine makes a text fit to be a message. What it may hold of values is taken out where it leaves: see private.
func oneLine(s string) string { return redact.Line(s, longest) }
