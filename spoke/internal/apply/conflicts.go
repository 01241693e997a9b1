package apply

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
)

// conflict is a field that somebody else has set to something else.
type conflict struct {
	manager, subresource string
	path                 []string // nil where the object has no such field
	text                 string   // for people
}

var conflictWith = regexp.MustCompile(`^conflict with "([^"]*)"(?: with subresource "([^"]*)")?`)

// conflicts reads them out of the refusal of an apply without force. The form is that of
// k8s.io/apimachinery/pkg/util/managedfields, which has one cause for each field and owner.
func conflicts(obj map[string]any, err error) []conflict {
	var as apierrors.APIStatus
	if !errors.As(err, &as) || as.Status().Code != http.StatusConflict || as.Status().Details == nil {
		return nil
	}
	var all []conflict
	for _, cause := range as.Status().Details.Causes {
		m := conflictWith.FindStringSubmatch(cause.Message)
		if cause.Type != metav1.CauseTypeFieldManagerConflict || m == nil {
			continue
		}
		c := conflict{manager: m[1], subresource: m[2], path: resolve(obj, cause.Field), text: strings.TrimPrefix(cause.Field, ".")}
		if c.path != nil {
			c.text = fields.Path(c.path).String() // as drift has it
		}
		all = append(all, c)
	}
	return all
}
