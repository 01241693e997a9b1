package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Keep what the hub has told, to compare it with what others were told"}
	c.AddCommand(a.auditExport())
	return c
}

func (a *app) auditExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write what the hub has told this spoke as JSON",
		Long: `export writes the vendor's signed statements as they came, and the digest under which each release was first found good.
There is nothing in it of your overlays, objects or secrets. Two spokes' files, of two providers, show with
` + "`hub audit compare`" + ` whether one hub has told both the same. It works with the spoke stopped and with the hub away.`,
		Example: "  spoke audit export > eu-1.json",
		Args:    arguments(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.data(true)
			if err != nil {
				return err
			}
			r, err := a.askFor(c.Context(), dir, (*local.Client).Audit)
			if errors.Is(err, local.ErrNotRunning) {
				r, err = a.remembered(dir)
			}
			if err != nil {
				return err
			}
			e := &localv1.AuditExport{Cluster: r.GetCluster(), Hub: r.GetHub(), At: r.GetAt(), LastContact: r.GetLastContact()}
			for _, m := range r.GetMemories() {
				e.Distributions = append(e.Distributions, m.GetAudited())
			}
			text, err := protojson.MarshalOptions{Multiline: true}.Marshal(e)
			if err != nil {
				return fmt.Errorf("write the audit: %w", err)
			}
			_, err = fmt.Fprintf(a.out, "%s\n", text)
			return err
		},
	}
}
