//! Kubernetes' numbers, under Kubernetes' names. No other file of this crate has one.

use std::time::Duration;

/// `terminationGracePeriodSeconds` of a pod (DefaultTerminationGracePeriodSeconds in core/v1).
pub const DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS: i64 = 30;
/// The least time a container is given between its stop signal and SIGKILL (minimumGracePeriodInSeconds).
pub const MINIMUM_GRACE_PERIOD: Duration = Duration::from_secs(2);
/// `terminationMessagePath` (TerminationMessagePathDefault).
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// Bytes of a termination message (MaxContainerTerminationMessageLength).
pub const MAX_CONTAINER_TERMINATION_MESSAGE_LENGTH: u64 = 4096;
/// Bytes of the log that stand in for a termination message (MaxContainerTerminationMessageLogLength).
pub const MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH: usize = 2048;
/// Lines of the log that stand in for a termination message (MaxContainerTerminationMessageLogLines).
pub const MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES: usize = 80;
/// Bytes of all termination messages of a pod (MaxPodTerminationMessageLogLength).
pub const MAX_POD_TERMINATION_MESSAGE_LOG_LENGTH: usize = 12 * 1024;

/// The first pause between two runs of a container (initialNodeBackOff, containerBackOffPeriod).
pub const CONTAINER_BACKOFF_INITIAL: Duration = Duration::from_secs(10);
/// What each pause is of the one before it (flowcontrol.Backoff doubles).
pub const CONTAINER_BACKOFF_FACTOR: f64 = 2.0;
/// The longest pause between two runs of a container (MaxContainerBackOff).
pub const MAX_CONTAINER_BACKOFF: Duration = Duration::from_secs(300);
/// A container that ran for longer than this starts over with the pauses (twice MaxContainerBackOff).
pub const CONTAINER_BACKOFF_RESET: Duration = Duration::from_secs(600);
/// The first pause between two pulls of an image (imageBackOffPeriod).
pub const IMAGE_BACKOFF_INITIAL: Duration = Duration::from_secs(10);
/// The longest pause between two pulls of an image (MaxImageBackOff).
pub const MAX_IMAGE_BACKOFF: Duration = Duration::from_secs(300);
/// How long a failed pull reads `ErrImagePull` before it reads `ImagePullBackOff`. Upstream shows the first until the
/// pod's next sync, which comes 5 to 15 seconds later (backOffPeriod, jittered by half).
pub const IMAGE_ERROR_SHOWN: Duration = Duration::from_secs(5);
/// The pause after any other step that failed (backOffPeriod of the pod workers).
pub const SYNC_BACKOFF: Duration = Duration::from_secs(10);

/// How long a resize for which the node has no room waits before it is looked at again (initialRetryDelay).
pub const RESIZE_RETRY: Duration = Duration::from_secs(30);

/// `timeoutSeconds` of a probe.
pub const PROBE_TIMEOUT_SECONDS: i32 = 1;
/// `periodSeconds` of a probe.
pub const PROBE_PERIOD_SECONDS: i32 = 10;
/// `successThreshold` of a probe.
pub const PROBE_SUCCESS_THRESHOLD: i32 = 1;
/// `failureThreshold` of a probe.
pub const PROBE_FAILURE_THRESHOLD: i32 = 3;
/// Tries within one probe when the probe itself can't be made (maxProbeRetries).
pub const MAX_PROBE_RETRIES: usize = 3;
/// Bytes of a probe's or hook's answer that are read (maxRespBodyLength, maxReadLength).
pub const MAX_PROBE_OUTPUT: usize = 10 * 1024;
/// What probes call themselves: its end is the version whose probes they are like (UserAgent).
pub const PROBE_USER_AGENT: &str = "kube-probe/1.36";
/// What hooks call themselves.
pub const LIFECYCLE_USER_AGENT: &str = "kube-lifecycle/1.36";

/// CFS shares of a whole CPU (SharesPerCPU).
pub const SHARES_PER_CPU: u64 = 1024;
/// Thousandths of a whole CPU (MilliCPUToCPU).
pub const MILLI_CPU_TO_CPU: u64 = 1000;
/// The least CFS shares (MinShares).
pub const MIN_SHARES: u64 = 2;
/// The most CFS shares (MaxShares).
pub const MAX_SHARES: u64 = 262_144;
/// Microseconds of a CFS period (QuotaPeriod).
pub const QUOTA_PERIOD: u64 = 100_000;
/// The least microseconds of CPU time in a period (MinQuotaPeriod).
pub const MIN_QUOTA_PERIOD: u64 = 1000;

/// `oom_score_adj` of containers of Guaranteed pods (guaranteedOOMScoreAdj).
pub const GUARANTEED_OOM_SCORE_ADJ: i32 = -997;
/// `oom_score_adj` of containers of BestEffort pods (besteffortOOMScoreAdj).
pub const BESTEFFORT_OOM_SCORE_ADJ: i32 = 1000;
/// Pods of at least this priority are critical (SystemCriticalPriority).
pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// The PriorityClasses that there are without anybody making them, and their values.
pub const SYSTEM_PRIORITY_CLASSES: [(&str, i32); 2] = [
    ("system-cluster-critical", SYSTEM_CRITICAL_PRIORITY),
    ("system-node-critical", SYSTEM_CRITICAL_PRIORITY + 1000),
];
/// What the names of PriorityClasses begin with that only the system has (SystemPriorityClassPrefix).
pub const SYSTEM_PRIORITY_PREFIX: &str = "system-";
/// The highest value of any other PriorityClass (HighestUserDefinablePriority).
pub const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

/// `nameserver` lines in `/etc/resolv.conf` (MaxDNSNameservers).
pub const MAX_DNS_NAMESERVERS: usize = 3;
/// Domains of the `search` line (MaxDNSSearchPaths).
pub const MAX_DNS_SEARCH_PATHS: usize = 32;
/// Characters of the `search` line (MaxDNSSearchListChars).
pub const MAX_DNS_SEARCH_LIST_CHARS: usize = 2048;
/// Characters of a host name.
pub const HOSTNAME_MAX_LEN: usize = 63;
/// Characters of a host name with its domain (fqdnMaxLen; the kernel takes no more).
pub const FQDN_MAX_LEN: usize = 64;

/// Dead containers that are kept of each name (MaxPerPodContainerCount), for the log of the previous one.
pub const MAX_PER_POD_CONTAINER: usize = 1;

/// `defaultMode` of configMap, secret, downwardAPI and projected volumes.
pub const VOLUME_DEFAULT_MODE: i32 = 0o644;
/// `schedulerName`.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";
/// `metadata.namespace` of a manifest without one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Bytes of a manifest file.
pub const MAX_MANIFEST_BYTES: usize = 8 * 1024 * 1024;
/// Levels of nesting in a manifest.
pub const MAX_MANIFEST_DEPTH: usize = 64;
/// Values in a manifest, each use of an alias counted again.
pub const MAX_MANIFEST_NODES: usize = 200_000;
/// Bytes of a ConfigMap's or Secret's data (MaxSecretSize).
pub const MAX_SECRET_SIZE: usize = 1024 * 1024;

/// Rules in `restartPolicyRules`.
pub const MAX_RESTART_RULES: usize = 20;
/// Values of a rule's `exitCodes`.
pub const MAX_RESTART_RULE_EXIT_CODES: usize = 255;

/// How long a pod's volumes may take before that is told (podAttachAndMountTimeout).
pub const POD_ATTACH_AND_MOUNT_TIMEOUT: Duration = Duration::from_secs(123);

/// How often it is looked whether images are to be removed (ImageGCPeriod).
pub const IMAGE_GC_PERIOD: Duration = Duration::from_secs(300);
/// How full the file system with the images may get before images are removed (imageGCHighThresholdPercent).
pub const IMAGE_GC_HIGH_THRESHOLD_PERCENT: u8 = 85;
/// How full it is to be then (imageGCLowThresholdPercent).
pub const IMAGE_GC_LOW_THRESHOLD_PERCENT: u8 = 80;

/// How often pods with limits of local storage are measured (evictionMonitoringPeriod).
pub const EVICTION_MONITORING_PERIOD: Duration = Duration::from_secs(10);
/// What the containers of a pod get that is evicted at once (immediateEvictionGracePeriodSeconds).
pub const IMMEDIATE_EVICTION_GRACE_PERIOD: Duration = Duration::from_secs(1);
