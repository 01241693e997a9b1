package realnode_test

import (
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/realnode"
)

func TestMain(m *testing.M) { realnode.Main(m) }

func TestStart(t *testing.T) {
	node := realnode.Shared(t)
	out, err := node.Cluster.Kubectl("get", "nodes,pods,services,endpointslices", "-A", "-o", "wide")
	t.Log(out, err)
}
