//! vSphere Integrated Containers: how it is recognised. docs/vic.md says what it lacks, and where VIC's source says so.

use bollard::Docker;
use bollard::models::SystemVersion;

/// The only version of the API that any VIC has spoken (vmware/vic, `pkg/version/version.go`).
const API: &str = "1.25";
/// What it calls itself in `GET /info` (vmware/vic, `lib/apiservers/engine/backends/system.go`, `SystemInfo`).
const ID: &str = "vSphere Integrated Containers";

/// Whether what answered is VIC's personality server. Endpoints of any other version are not asked.
pub(super) async fn is_vic(docker: &Docker, version: &SystemVersion) -> bool {
    version.api_version.as_deref() == Some(API)
        && docker.info().await.is_ok_and(|info| info.id.as_deref() == Some(ID))
}
