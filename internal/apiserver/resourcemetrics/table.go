package resourcemetrics

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/metrics/pkg/apis/metrics"
)

// columns prints metrics for `kubectl get`, as metrics-server does.
type columns struct{}

// ConvertToTable implements rest.TableConvertor.
func (columns) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		table.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			{Name: "cpu", Type: "string", Format: "quantity"},
			{Name: "memory", Type: "string", Format: "quantity"},
			{Name: "Window", Type: "string", Format: "duration"},
		}
	}
	switch o := object.(type) {
	case *metrics.NodeMetrics:
		addNode(table, o)
	case *metrics.NodeMetricsList:
		for i := range o.Items {
			addNode(table, &o.Items[i])
		}
	case *metrics.PodMetrics:
		addPod(table, o)
	case *metrics.PodMetricsList:
		for i := range o.Items {
			addPod(table, &o.Items[i])
		}
	}
	return table, nil
}

func addNode(table *metav1.Table, m *metrics.NodeMetrics) {
	add(table, m, m.Name, m.Usage, m.Window)
}

func addPod(table *metav1.Table, m *metrics.PodMetrics) {
	sum := corev1.ResourceList{}
	for _, c := range m.Containers {
		for name, quantity := range c.Usage {
			total := sum[name]
			total.Add(quantity)
			sum[name] = total
		}
	}
	add(table, m, m.Name, sum, m.Window)
}

func add(table *metav1.Table, object runtime.Object, name string, usage corev1.ResourceList, window metav1.Duration) {
	cells := []any{name}
	for _, kind := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		quantity := usage[kind]
		cells = append(cells, quantity.String())
	}
	table.Rows = append(table.Rows, metav1.TableRow{Cells: append(cells, window.Duration.String()), Object: runtime.RawExtension{Object: object}})
}
