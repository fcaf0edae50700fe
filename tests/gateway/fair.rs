//! Holders of API keys take turns where their requests wait for the same place.

use std::path::PathBuf;
use std::sync::Arc;

use crate::access::keys;
use crate::client::{CHAT, Client, Req};
use crate::harness::{Gateway, Setup, until};
use crate::scripted::{Gate, Scripted, Step, answer};

struct Full {
    backend: Scripted,
    gate: Gate,
    gateway: Gateway,
    /// The request that is at the backend while the others come.
    running: Client,
    _keys: PathBuf,
}

/// A backend with one place, which is taken, behind a queue of so many places.
async fn full(lines: &[&str], max_waiting: usize) -> Full {
    let gate = Gate::new();
    let wait = gate.clone();
    let backend = Scripted::start(move |_| vec![Step::Wait(wait.clone()), Step::Send(answer(200, "", b"{}"))]).await;
    let keys = keys(lines);
    let setup = Setup::new().backend("a", &backend.url()).top(&format!("access: {{ keys_file: {keys:?} }}"));
    let overload = format!("overload: {{ max_in_flight: 1, queue_wait: 60s, max_waiting: {max_waiting} }}");
    let gateway = setup.pool(&overload).start().await;
    let running = begin(&gateway, "batch").await;
    until("the first is there", || backend.count() == 1).await;
    Full { backend, gate, gateway, running, _keys: keys }
}

async fn begin(gateway: &Gateway, holder: &str) -> Client {
    let mut client = gateway.client().await;
    let req = Req::post(CHAT, b"{}").session("s").header("X-Api-Key", &format!("{holder}-key"));
    client.write(&req.header("X-Holder", holder).bytes()).await;
    client
}

impl Full {
    async fn queued(&self, count: usize) {
        let queue = Arc::clone(&self.gateway.inner.snapshot.load().links[0].queue);
        until("so many wait", || queue.len() == count).await;
    }

    /// Sends requests of these holders, each of which waits before the next one comes.
    async fn send(&self, holders: &[&str]) -> Vec<Client> {
        let mut clients = Vec::new();
        for (waiting, holder) in (1..).zip(holders) {
            clients.push(begin(&self.gateway, holder).await);
            self.queued(waiting).await;
        }
        clients
    }

    /// Serves everything that waits; returns whose requests came, in their order.
    async fn serve(&mut self, clients: &mut [Client]) -> Vec<String> {
        for _ in 0..=clients.len() {
            self.gate.open();
        }
        assert_eq!(self.running.answer().await.status, 200);
        for client in clients {
            assert_eq!(client.answer().await.status, 200);
        }
        self.gateway.until_idle().await;
        self.backend.seen().iter().skip(1).map(|seen| seen.header("X-Holder").unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn one_request_waits_a_turn_behind_fifty_of_another_key() {
    let mut full = full(&["batch batch-key", "person person-key"], 1000).await;
    let mut holders = vec!["batch"; 50];
    holders.push("person");
    let mut clients = full.send(&holders).await;
    let order = full.serve(&mut clients).await;
    assert_eq!(order.iter().position(|holder| holder == "person"), Some(1), "{order:?}");
}

#[tokio::test]
async fn weight_is_requests_in_a_turn() {
    let mut full = full(&["batch batch-key", "person person-key weight=2"], 1000).await;
    let mut clients = full.send(&["batch", "batch", "batch", "person", "person", "person"]).await;
    let order = full.serve(&mut clients).await;
    assert_eq!(order, ["batch", "person", "person", "batch", "person", "batch"]);
}

#[tokio::test]
async fn full_queue_makes_room_for_another_key() {
    let mut full = full(&["batch batch-key", "person person-key"], 3).await;
    let mut clients = full.send(&["batch", "batch", "batch"]).await;
    let mut refused = begin(&full.gateway, "batch").await;
    assert_eq!(refused.answer().await.status, 503, "its own requests fill the queue");
    clients.push(begin(&full.gateway, "person").await);
    assert_eq!(clients.remove(2).answer().await.status, 503, "the last of the key that has the most");
    full.queued(3).await;
    assert_eq!(full.serve(&mut clients).await, ["batch", "person", "batch"]);
}

#[tokio::test]
async fn client_that_leaves_the_queue_costs_its_key_no_turn() {
    let mut full = full(&["batch batch-key", "person person-key"], 1000).await;
    let mut clients = full.send(&["batch", "batch", "person"]).await;
    drop(clients.remove(0));
    full.queued(2).await;
    assert_eq!(full.serve(&mut clients).await, ["batch", "person"]);
}
