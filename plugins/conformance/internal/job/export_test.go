package job

import (
	"context"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// Leave makes a test's copy and forgets it, as a plugin does that is killed then.
func (r Runner) Leave(ctx context.Context, t Test) (kube.Object, error) { return r.create(ctx, t) }
