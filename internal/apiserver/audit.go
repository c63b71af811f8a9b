package apiserver

import (
	"fmt"
	"io"
	"os"

	"gopkg.in/natefinch/lumberjack.v2"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit/policy"
	pluginlog "k8s.io/apiserver/plugin/pkg/audit/log"
)

// The audit log is rotated at auditFileMiB, and auditFiles old ones are kept.
const (
	auditFileMiB = 100
	auditFiles   = 5
)

func (a *assembly) audit() error {
	if a.options.AuditLogPath == "" {
		return nil
	}
	rules := defaultAuditPolicy()
	if f := a.options.AuditPolicyFile; f != "" {
		var err error
		if rules, err = policy.LoadPolicyFromFile(f); err != nil {
			return fmt.Errorf("audit policy %s: %w", f, err)
		}
	}
	out, err := auditFile(a.options.AuditLogPath)
	if err != nil {
		return err
	}
	a.generic.AuditPolicyRuleEvaluator = policy.NewPolicyRuleEvaluator(rules)
	a.generic.AuditBackend = pluginlog.NewBackend(out, pluginlog.FormatJson, auditv1.SchemeGroupVersion)
	return nil
}

func auditFile(path string) (io.Writer, error) {
	if path == "-" {
		return os.Stdout, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write the audit log (%w): choose another file with --audit-log", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &lumberjack.Logger{Filename: path, MaxSize: auditFileMiB, MaxBackups: auditFiles}, nil
}

// defaultAuditPolicy records who changed what and when, without the content: not what is only read, nor the renewals
// and reports that machines send all the time.
func defaultAuditPolicy() *auditinternal.Policy {
	return &auditinternal.Policy{
		OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived},
		Rules: []auditinternal.PolicyRule{
			{Level: auditinternal.LevelNone, Verbs: []string{"get", "list", "watch"}},
			{Level: auditinternal.LevelNone, Resources: []auditinternal.GroupResources{
				{Group: "coordination.k8s.io", Resources: []string{"leases"}},
				{Resources: []string{"events", "nodes/status", "pods/status"}},
				{Group: "events.k8s.io", Resources: []string{"events"}},
			}},
			{Level: auditinternal.LevelMetadata},
		},
	}
}
