package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wheelwright-dev/wheelwright/pkg/redact"
)

// Errors by what to do next.
var (
	// ErrUnreachable: nobody answered, or only to say "later". Retry; nothing is wrong with the set.
	ErrUnreachable = errors.New("the Kubernetes API cannot be reached")
	// ErrRefused: the API server said no. The same set will be refused again until somebody acts.
	ErrRefused = errors.New("refused by the API server")
	// ErrEmptySet: nothing is pruned on the word of an empty set.
	ErrEmptySet = errors.New("the new set is empty")
	// ErrDamagedInventory: the ConfigMap that should hold an inventory holds something else.
	ErrDamagedInventory = errors.New("the inventory on the cluster is damaged")
)

const maxMessage = 300

// Problem is an object that cannot be applied, and why.
type Problem struct {
	Object  string // "Deployment app/backend"
	Message string
}

func (p Problem) String() string { return p.Object + ": " + p.Message }

// joined is several errors on one line.
type joined []error

func join(errs ...error) error {
	var j joined
	for _, e := range errs {
		if e != nil {
			j = append(j, e)
		}
	}
	switch len(j) {
	case 0:
		return nil
	case 1:
		return j[0]
	}
	return j
}

func (j joined) Unwrap() []error { return j }

func (j joined) Error() string {
	parts := make([]string, len(j))
	for n, e := range j {
		parts[n] = e.Error()
	}
	return strings.Join(parts, "; ")
}

// refused is the error of a set with problems.
func refused(problems []Problem, of int) error {
	parts := make([]string, len(problems))
	for n, p := range problems {
		parts[n] = p.String()
	}
	return fmt.Errorf("%d of %d objects: %w: %s", len(problems), of, ErrRefused, strings.Join(parts, "; "))
}

// failed sorts a request's error: cancelled, unreachable, or the API server's own status.
func (a *api) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		switch status.Status().Code {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		default:
			return err
		}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which names objects
	}
	return fmt.Errorf("%w at %s: %s; try: kubectl get --raw /readyz", ErrUnreachable, a.host, oneLine(err.Error()))
}

// ours: not about an object, so that there is no sense in going on with the next one.
func ours(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// refusal is an API server's no, told for people and free of values.
func refusal(kind, namespace, name string, err error) error {
	if ours(err) {
		return err
	}
	return refusalError{named(kind, namespace, name) + ": " + explain(kind, namespace, name, err)}
}

type refusalError struct{ text string }

func (e refusalError) Error() string        { return e.text }
func (e refusalError) Is(target error) bool { return target == ErrRefused }

var denied = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]*)" in API group "([^"]*)"(?: in the namespace "([^"]*)")?`)

// explain tells why, without values: they are the provider's, and a Secret's are nobody's.
func explain(kind, namespace, name string, err error) string {
	var as apierrors.APIStatus
	if !errors.As(err, &as) {
		return oneLine(err.Error())
	}
	st := as.Status()
	if m := denied.FindStringSubmatch(st.Message); m != nil && st.Reason == metav1.StatusReasonForbidden {
		if strings.HasPrefix(m[2], "impersonate") { // the right went since it was proven
			return m[1] + " may not impersonate the service account that spoke.yaml names under serviceAccount any more; see: kubectl auth can-i --list --as=" + m[1]
		}
		return missingRule(m[1], m[2], m[3], m[4], m[5])
	}
	switch {
	case st.Reason == metav1.StatusReasonUnauthorized:
		return "the API server does not accept the spoke's credentials (401); try: kubectl auth whoami"
	case terminating(err):
		return fmt.Sprintf("namespace %s is being deleted; wait until it is gone: kubectl get namespace %s", namespace, namespace)
	case st.Reason == metav1.StatusReasonInvalid && st.Details != nil && len(st.Details.Causes) > 0:
		return invalid(kind, st.Details.Causes)
	case isMissingNamespace(err) != "":
		ns := isMissingNamespace(err)
		return fmt.Sprintf("namespace %s does not exist and does not come with the release; try: kubectl create namespace %s", ns, ns)
	case webhookAway.MatchString(st.Message):
		m := webhookAway.FindStringSubmatch(st.Message)
		return fmt.Sprintf("admission webhook %s does not answer: %s; try: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations", m[1], oneLine(m[2]))
	case overQuota.MatchString(st.Message):
		m := overQuota.FindStringSubmatch(st.Message)
		return fmt.Sprintf("%s; see it with: kubectl -n %s describe resourcequota %s", oneLine(m[0]), namespace, m[1])
	case tooLarge(err):
		return "it is larger than the cluster's store takes (1.5 MiB where nobody says otherwise); split it, or let an overlay take it out"
	case kind == "Secret":
		return fmt.Sprintf("%s (%d); the server's text may quote the Secret and is withheld", st.Reason, st.Code)
	}
	return oneLine(strip(st.Message))
}

var (
	webhookAway = regexp.MustCompile(`failed calling webhook "([^"]*)": (?:failed to call webhook: )?(.*)`)
	overQuota   = regexp.MustCompile(`exceeded quota: ([^,]*), requested: .*`)
)

// tooLarge: the request did not fit through the API server, or the object into its store.
func tooLarge(err error) bool {
	return apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsInternalError(err) && strings.Contains(err.Error(), "request is too large") ||
		err != nil && strings.Contains(err.Error(), "trying to send message larger than max")
}

// missingRule writes the rule without braces: what stands in braces is taken for a quoted value and does
// not leave the cluster.
func missingRule(user, verb, plural, group, namespace string) string {
	return missingVerbs(user, verb, plural, group, namespace, everyVerb)
}

func missingVerbs(user, verb, plural, group, namespace string, verbs []string) string {
	role, where := "ClusterRole", "for the whole cluster"
	if namespace != "" {
		role, where = "Role in namespace "+namespace, "in namespace "+namespace
	}
	return fmt.Sprintf(`%s may not %s %s of API group %q %s; add to its %s the rule apiGroups: [%q], resources: [%q], verbs: ["%s"]`,
		user, verb, plural, group, where, role, group, plural, strings.Join(verbs, `", "`))
}

// invalid lists field and reason; the values are left out.
func invalid(kind string, causes []metav1.StatusCause) string {
	var parts []string
	for _, c := range causes {
		text := withoutValue(c.Message)
		if kind == "Secret" {
			text, _, _ = strings.Cut(text, ": ")
		}
		if strings.Contains(text, "Too long") {
			text += "; split it, or let an overlay take it out"
		}
		if c.Field != "" {
			text = c.Field + ": " + text
		}
		parts = append(parts, text)
	}
	return oneLine(strings.Join(parts, "; "))
}

// withoutValue turns `Invalid value: "x": must be y` into `Invalid value: must be y`. The form is that
// of k8s.io/apimachinery/pkg/util/validation/field: a number, a quoted text, JSON, or Go syntax.
func withoutValue(s string) string {
	for _, t := range []string{"Invalid value: ", "Unsupported value: ", "Duplicate value: ", "Not found: "} {
		rest, ok := strings.CutPrefix(s, t)
		if !ok {
			continue
		}
		head := strings.TrimSuffix(t, ": ")
		d := json.NewDecoder(strings.NewReader(rest))
		var v any
		if d.Decode(&v) == nil {
			rest = strings.TrimPrefix(rest[d.InputOffset():], ": ")
		} else if i := strings.LastIndex(rest, ": "); i >= 0 {
			rest = rest[i+2:]
		} else {
			rest = ""
		}
		if rest == "" {
			return head
		}
		return head + ": " + rest
	}
	return s
}

var (
	typedPatch = regexp.MustCompile(`failed to create typed patch object \([^)]*\): `)
	gotValue   = regexp.MustCompile(`, got [^\n]*`)
)

func strip(s string) string {
	return gotValue.ReplaceAllString(typedPatch.ReplaceAllString(s, ""), "")
}

// oneLine makes a text fit for a status: one line, at most 300 characters, no credentials.
func oneLine(s string) string { return oneLineTo(s, maxMessage) }

func oneLineTo(s string, limit int) string { return redact.Line(s, limit) }

// terminating: the object's namespace is on its way out.
func terminating(err error) bool {
	return apierrors.HasStatusCause(err, "NamespaceTerminating")
}

// isMissingNamespace returns the namespace that err says is not there, or "".
func isMissingNamespace(err error) string {
	var as apierrors.APIStatus
	if !errors.As(err, &as) || !apierrors.IsNotFound(err) {
		return ""
	}
	if d := as.Status().Details; d != nil && d.Kind == "namespaces" {
		return d.Name
	}
	return ""
}
