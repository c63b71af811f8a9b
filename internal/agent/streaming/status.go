package streaming

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strconv"

	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/everynode/everynode/internal/agent/metrics"
)

// addStatus adds what tells how the node is.
func (s *Server) addStatus(mux *http.ServeMux) {
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /stats/summary/", s.summary)
	mux.Handle("GET /metrics", metrics.Handler())
	mux.Handle("GET /metrics/resource", s.o.Stats.ResourceMetrics())
	mux.Handle("GET /metrics/cadvisor", s.o.Stats.CAdvisorMetrics())
	mux.Handle("GET /metrics/probes", metrics.ProbesHandler())
	mux.HandleFunc("GET /configz", s.configuration)
	mux.HandleFunc("GET /logs/", s.machineLogs)
	healthz.InstallHandler(mux, healthz.PingHealthz, healthz.LogHealthz,
		healthz.NamedCheck("syncloop", func(*http.Request) error { return s.o.Healthy() }))
}

// summary serves the Summary API. What could not be measured is missing in it, and logged.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	measure := s.o.Stats.Summary
	if cheap, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory")); cheap {
		measure = s.o.Stats.CPUAndMemory
	}
	summary, err := measured(r.Context(), measure)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, summary)
}

func measured(ctx context.Context, measure func(context.Context) (*statsapi.Summary, error)) (*statsapi.Summary, error) {
	summary, err := measure(ctx)
	if summary != nil && err != nil {
		klog.FromContext(ctx).Error(err, "Statistics of this node are incomplete")
		err = nil
	}
	return summary, err
}

// configuration serves /configz as kubelets do.
func (s *Server) configuration(w http.ResponseWriter, _ *http.Request) {
	config := map[string]*kubeletconfig.KubeletConfiguration{}
	if s.o.Config != nil {
		config["kubeletconfig"] = s.o.Config
	}
	writeJSON(w, config)
}

// machineLogs serves the files in the machine's folder of logs. Symlinks that lead out of it are
// not followed: pods that mount the folder could make some.
func (s *Server) machineLogs(w http.ResponseWriter, r *http.Request) {
	root, err := os.OpenRoot(s.o.LogDir)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer root.Close()
	http.StripPrefix("/logs/", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}

func writeJSON(w http.ResponseWriter, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
