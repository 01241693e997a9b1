package apply

import (
	"log/slog"

	"k8s.io/klog/v2"
)

// LogTo has what Kubernetes' client says by itself, whose logger is the whole process's, go where all else does.
func LogTo(log *slog.Logger) { klog.SetSlogLogger(log) }
