package streaming

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/client-go/kubernetes/scheme"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	utilexec "k8s.io/utils/exec"
)

// runTimeout bounds a command of /run, which has no other way to end.
const runTimeout = 2 * time.Minute

// streams are the ones a caller wants, by the names that the API server uses for them.
type streams struct{ stdin, stdout, stderr, tty bool }

func wantedStreams(query url.Values) (streams, error) {
	on := func(name string) bool { return query.Get(name) == "1" || query.Get(name) == "true" }
	s := streams{stdin: on(corev1.ExecStdinParam), stdout: on(corev1.ExecStdoutParam), stderr: on(corev1.ExecStderrParam), tty: on(corev1.ExecTTYParam)}
	// A terminal has one output.
	s.stderr = s.stderr && !s.tty
	if !s.stdin && !s.stdout && !s.stderr {
		return s, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return s, nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(id string, want streams) (string, error) {
		response, err := s.o.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
			ContainerId: id, Cmd: r.URL.Query()[corev1.ExecCommandParam],
			Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr, Tty: want.tty,
		})
		return response.GetUrl(), err
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func(id string, want streams) (string, error) {
		response, err := s.o.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
			ContainerId: id, Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr, Tty: want.tty,
		})
		return response.GetUrl(), err
	})
}

// stream connects the caller with the URL that the runtime gives for a container.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, open func(id string, want streams) (string, error)) {
	want, err := wantedStreams(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("container")
	pod := s.pod(w, r, name)
	if pod == nil {
		return
	}
	id, err := s.o.Pods.Container(pod.Namespace, pod.Name, pod.UID, name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	location, err := open(id, want)
	s.forward(w, r, location, err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	pod := s.pod(w, r, "")
	if pod == nil {
		return
	}
	ports, err := wantedPorts(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, err := s.o.Pods.Sandbox(pod.Namespace, pod.Name, pod.UID)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	response, err := s.o.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	s.forward(w, r, response.GetUrl(), err)
}

// wantedPorts are given by websocket callers only; SPDY ones name the port with each stream.
func wantedPorts(query url.Values) ([]int32, error) {
	var ports []int32
	for _, list := range query[corev1.PortHeader] {
		for port := range strings.SplitSeq(list, ",") {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("port %q: must be between 1 and 65535", port)
			}
			ports = append(ports, int32(n))
		}
	}
	return ports, nil
}

// forward hands the connection over to the runtime's streaming server.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, location string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	target, err := url.Parse(location)
	if err != nil || target.Host == "" {
		http.Error(w, fmt.Sprintf("the container runtime gave an unusable streaming address %q", location), http.StatusInternalServerError)
		return
	}
	proxy.NewUpgradeAwareHandler(target, nil, false, true, failed{}).ServeHTTP(w, r)
}

// failed answers when a stream cannot be opened: the request asks for none, or the runtime's
// streaming server cannot be reached.
type failed struct{}

// Error implements proxy.ErrorResponder.
func (failed) Error(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	if apierrors.IsBadRequest(err) {
		status = http.StatusBadRequest
	} else {
		klog.FromContext(r.Context()).Error(err, "Stream to the container runtime failed", "path", r.URL.Path)
	}
	http.Error(w, err.Error(), status)
}

// run is the kubelet's plain way to run a command: no streams, the output when it has ended.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("container")
	pod := s.pod(w, r, name)
	if pod == nil {
		return
	}
	id, err := s.o.Pods.Container(pod.Namespace, pod.Name, pod.UID, name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	stdout, stderr, err := s.o.Runtime.ExecSync(r.Context(), id, strings.Split(r.FormValue("cmd"), " "), runTimeout)
	// A command that fails is an answer too.
	var exit utilexec.CodeExitError
	if err != nil && !errors.As(err, &exit) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(stdout, stderr...))
}

// pods lists this node's pods.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := &corev1.PodList{}
	for _, pod := range s.o.Pods.Pods() {
		list.Items = append(list.Items, *pod)
	}
	writePods(w, list)
}

// runningPods lists what runs: names of pods, and of their running containers.
func (s *Server) runningPods(w http.ResponseWriter, _ *http.Request) {
	list := &corev1.PodList{}
	for _, pod := range s.o.Pods.Pods() {
		short := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}}
		for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range statuses {
				if statuses[i].State.Running != nil {
					short.Spec.Containers = append(short.Spec.Containers, corev1.Container{Name: statuses[i].Name, Image: statuses[i].ImageID})
				}
			}
		}
		if len(short.Spec.Containers) > 0 {
			list.Items = append(list.Items, short)
		}
	}
	writePods(w, list)
}

func writePods(w http.ResponseWriter, list *corev1.PodList) {
	data, err := runtime.Encode(scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), list)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// pod finds the pod that the path names, and in it the container if one is named. It answers itself
// when there is none, and returns nil.
func (s *Server) pod(w http.ResponseWriter, r *http.Request, container string) *corev1.Pod {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid"))
	if pod := newest(s.o.Pods.Pods(), namespace, name, uid); pod != nil {
		if container != "" && !hasContainer(pod, container) {
			http.Error(w, fmt.Sprintf("container %q not found in pod %q", container, name), http.StatusNotFound)
			return nil
		}
		return pod
	}
	http.Error(w, fmt.Sprintf("pod %q does not exist on node %q", name, s.o.NodeName), http.StatusNotFound)
	return nil
}

// newest is the pod of that name: while one ends, its successor may be here already.
func newest(pods []*corev1.Pod, namespace, name string, uid types.UID) *corev1.Pod {
	var found *corev1.Pod
	for _, pod := range pods {
		if pod.Namespace != namespace || pod.Name != name || uid != "" && pod.UID != uid {
			continue
		}
		if found == nil || found.CreationTimestamp.Before(&pod.CreationTimestamp) {
			found = pod
		}
	}
	return found
}

func hasContainer(pod *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}
