"""The audit of a judge: rated texts, plan, metrics and result; and the comparison of rating with ranking."""

from valueflow.judging.audit.audit import audit_result, plan_audit
from valueflow.judging.audit.result import AuditConfig, AuditResult

__all__ = ["AuditConfig", "AuditResult", "audit_result", "plan_audit"]
