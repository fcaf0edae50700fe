//! Backends that are named by their host, and what names can do. A hosts file of the gateway's own stands in for DNS; it
//! takes root and `unshare`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::backend::Backend;
use crate::harness::file;
use crate::process::{BINARY, Process};
use crate::scenario::{Play, Played, Scenario, not_applicable, scenario};
use crate::stage::{Stage, setup};
use crate::tally::STARTED_THERE;

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("gone", "gpu1's name can't be resolved any more while gpu1 is well", gone),
        scenario("nxdomain", "gpu1 dies, and by then its name can't be resolved; later both are there again", nxdomain)
            .may(&[STARTED_THERE]),
        scenario("moved", "gpu1 dies and comes back at another address", moved).may(&[STARTED_THERE]),
        scenario("shrinks", "gpu1's name has two addresses; the one in use dies and leaves the set", shrinks)
            .may(&[STARTED_THERE]),
        not_applicable(
            "empty",
            "DNS answers with an empty set",
            "a name without an address can't be resolved: `nxdomain`",
        ),
        not_applicable(
            "discovery",
            "a set of backends in DNS grows and shrinks",
            "backends come from the config file; a name is one backend, and is resolved when a connection fails",
        ),
    ]
}

/// Three backends of which gpu1 is known by name, and what the name stands for.
struct Named {
    stage: Stage,
    hosts: PathBuf,
}

impl Named {
    /// The name stands for these addresses.
    async fn start(play: Play, addresses: &[&str]) -> Result<Named, String> {
        let allowed = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
        if !allowed.is_ok_and(|status| status.success()) {
            return Err("no mount namespace: it takes root and `unshare`".to_owned());
        }
        let backends: Vec<Backend> = ["gpu0", "gpu1", "gpu2"].map(Backend::start).into();
        let setup = backends.iter().fold(setup(), |setup, backend| {
            let port = backend.address.port();
            let host = if backend.name() == "gpu1" { NAME } else { "127.0.0.1" };
            setup.backend(backend.name(), &format!("http://{host}:{port}"))
        });
        let (config, hosts, switch) = (file(&setup.yaml()), file(&lines(addresses)), file("hosts: files\n"));
        let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/nsswitch.conf && \
                      exec \"$0\" --log-format json run --config \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "/bin/sh", "-c", script, BINARY]).args([&hosts, &switch, &config]);
        let stage = Stage::behind(play, backends, Process::spawn(command, config).await).await;
        Ok(Named { stage, hosts })
    }

    /// From now on the name stands for these.
    fn stands_for(&self, addresses: &[&str]) {
        std::fs::write(&self.hosts, lines(addresses)).unwrap();
    }

    /// gpu1 dies; while it is dead, clients have their turns.
    async fn dies(&mut self) {
        self.stage.fault_begins();
        self.stage.gpu1().die();
        self.stage.traffic.turns(self.stage.play.times(2)).await;
    }

    async fn comes_back(mut self) -> Played {
        self.stage.fault_ends();
        self.stage.until_serving("gpu1").await;
        self.stage.traffic.turns(self.stage.play.times(3)).await;
        self.stage.finish().await
    }
}

fn lines(addresses: &[&str]) -> String {
    addresses.iter().map(|address| format!("{address} {NAME}\n")).collect::<String>() + "127.0.0.1 localhost\n"
}

const NAME: &str = "gpu1.faults.test";

async fn gone(play: Play) -> Played {
    let mut named = match Named::start(play, &["127.0.0.1"]).await {
        Ok(named) => named,
        Err(why) => return Played::skipped(why),
    };
    named.stands_for(&[]);
    named.stage.faulty(&[]);
    named.stage.traffic.turns(named.stage.play.times(5)).await;
    named.stage.finish().await
}

async fn nxdomain(play: Play) -> Played {
    let mut named = match Named::start(play, &["127.0.0.1"]).await {
        Ok(named) => named,
        Err(why) => return Played::skipped(why),
    };
    named.stands_for(&[]);
    named.dies().await;
    named.stage.gpu1().revive();
    named.stage.traffic.turns(2).await;
    named.stands_for(&["127.0.0.1"]);
    named.comes_back().await
}

async fn moved(play: Play) -> Played {
    let mut named = match Named::start(play, &["127.0.0.1"]).await {
        Ok(named) => named,
        Err(why) => return Played::skipped(why),
    };
    named.dies().await;
    let address = SocketAddr::from(([127, 0, 0, 2], named.stage.gpu1().address.port()));
    let _elsewhere = Backend::at("gpu1", address, None);
    named.stands_for(&["127.0.0.2"]);
    named.comes_back().await
}

async fn shrinks(play: Play) -> Played {
    let mut named = match Named::start(play, &["127.0.0.1", "127.0.0.2"]).await {
        Ok(named) => named,
        Err(why) => return Played::skipped(why),
    };
    let address = SocketAddr::from(([127, 0, 0, 2], named.stage.gpu1().address.port()));
    let _other = Backend::at("gpu1", address, None);
    named.stands_for(&["127.0.0.2"]);
    named.dies().await;
    named.comes_back().await
}
