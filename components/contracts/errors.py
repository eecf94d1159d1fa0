"""Every error a person may see.

    EsmmError
    ├── UsageError            bad command line or config (exit code 2)
    │   └── FeatureSpecError  a feature declaration that cannot be trained on or served
    ├── DataError             a source or artifact that cannot be read as what it claims to be
    │   └── CorruptArtifact   a file whose hash is not the one its manifest promises
    ├── DataGateClosed        validation refused the data
    ├── NoEvidence            a gate was asked to decide without what it decides on
    ├── TrainingDiverged      loss or weights stopped being finite (the candidate is ineligible)
    ├── RegistryError         champion, version or alias is not what the caller assumed
    ├── Busy                  another run holds the home's lock
    ├── ClusterError          a cluster refused a training job, or the job failed there
    └── ServiceError          the service did not start or did not answer

A message says what is wrong, where, and what to do about it. The command line prints the message alone,
so it has to be complete; `code` is the short name written to the run record.
"""


class EsmmError(Exception):
    """Base of the tree. `exit_code` is what the `esmm` command exits with."""

    exit_code = 1

    @property
    def code(self) -> str:
        return type(self).__name__


class UsageError(EsmmError):
    exit_code = 2


class FeatureSpecError(UsageError):
    pass


class DataError(EsmmError):
    pass


class CorruptArtifact(DataError):
    pass


class DataGateClosed(EsmmError):
    pass


class NoEvidence(EsmmError):
    pass


class TrainingDiverged(EsmmError):
    pass


class RegistryError(EsmmError):
    pass


class Busy(EsmmError):
    pass


class ClusterError(EsmmError):
    pass


class ServiceError(EsmmError):
    pass
