//! Two networks with a cable between them: where packets can vanish without anybody being told.
//!
//! The gateway, its clients and two backends are in the front network, gpu1 is in the back one. The cable is "cut" by
//! giving each end a wrong hardware address for the other: packets leave, and nobody takes them. No interface goes down
//! and no route goes away, so no program gets an error. It takes root and `ip` of iproute2, no firewall.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;

/// The cable and the networks at its ends, which are gone when it drops.
pub(crate) struct Cable {
    front: String,
    back: String,
}

impl Cable {
    /// Makes it and moves this thread into the front network; everything that it begins from now on is there. An error
    /// says why the machine does not allow it.
    pub(crate) fn plug() -> Result<Cable, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ingle-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cable = Cable { front: format!("{name}-front"), back: format!("{name}-back") };
        let (front, back) = (cable.front.as_str(), cable.back.as_str());
        for line in [
            format!("netns add {front}"),
            format!("netns add {back}"),
            format!("link add front netns {front} type veth peer name back netns {back}"),
            format!("-n {front} address add {FRONT}/24 dev front"),
            format!("-n {back} address add {BACK}/24 dev back"),
            format!("-n {front} link set lo up"),
            format!("-n {back} link set lo up"),
            format!("-n {front} link set front up"),
            format!("-n {back} link set back up"),
        ] {
            ip(&line)?;
        }
        enter(front)?;
        Ok(cable)
    }

    /// Does something in the back network, where what it opens stays.
    pub(crate) fn in_back<T: Send>(&self, work: impl FnOnce(SocketAddr) -> T + Send) -> T {
        let runtime = Handle::current();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.back).expect("the back network");
                let _runtime = runtime.enter();
                work(SocketAddr::new(BACK.parse().unwrap(), 0))
            });
            thread.join().expect("what is done there")
        })
    }

    /// From now on nothing comes through.
    pub(crate) fn cut(&self) {
        ip(&format!("-n {} neigh replace {BACK} lladdr {NOBODY} dev front nud permanent", self.front)).unwrap();
        ip(&format!("-n {} neigh replace {FRONT} lladdr {NOBODY} dev back nud permanent", self.back)).unwrap();
    }

    /// From now on everything does.
    pub(crate) fn mend(&self) {
        ip(&format!("-n {} neigh del {BACK} dev front", self.front)).unwrap();
        ip(&format!("-n {} neigh del {FRONT} dev back", self.back)).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Those that were not made can't be deleted.
        let _ = ip(&format!("netns del {}", self.front));
        let _ = ip(&format!("netns del {}", self.back));
    }
}

/// The gateway's address on the cable.
pub(crate) const FRONT: &str = "10.213.0.1";
const BACK: &str = "10.213.0.2";
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// Moves this thread.
fn enter(network: &str) -> Result<(), String> {
    let file = File::open(format!("/run/netns/{network}")).map_err(|error| format!("network namespace: {error}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("network namespace: {error}"))
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.map_err(|error| format!("no program `ip` (iproute2): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("`ip {line}` failed: {said}")) }
}
