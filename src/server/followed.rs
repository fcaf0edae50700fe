//! Certificates and keys follow their files.

use std::sync::Arc;
use std::time::Duration;

use pingora::prelude::sleep;
use tokio::task::spawn_blocking;

use crate::gateway::Gateway;

/// Looks at the files again and again, for as long as the process lives.
pub(super) async fn follow(gateway: Arc<Gateway>) {
    loop {
        sleep(LOOK).await;
        let gateway = Arc::clone(&gateway);
        // A file system that hangs must hold nobody up but this. An error is a panic, which has been reported.
        let _ = spawn_blocking(move || gateway.refresh()).await;
    }
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
