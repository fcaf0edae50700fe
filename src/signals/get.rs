//! One GET, and nothing kept of it: the connection is closed, the body bounded.

use http::header;
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;

use crate::link::Link;

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// At most [`MAX_BODY`] bytes.
    pub(super) body: Vec<u8>,
    /// The body had more.
    pub(super) cut: bool,
}

/// Asks a backend for a path. It takes as long as it takes: the caller bounds the time.
pub(super) async fn get(connector: &Connector, peer: &HttpPeer, link: &Link, path: &str) -> pingora::Result<Answer> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), None)?;
    request.insert_header(header::HOST, link.address.origin().authority())?;
    request.insert_header(header::CONNECTION, "close")?;
    if let Some(own) = &*link.authorization.load() {
        request.insert_header(header::AUTHORIZATION, own.as_ref())?;
    }
    for field in &link.headers.load().fields {
        request.insert_header(field.name.clone(), field.value.clone())?;
    }
    let (mut session, _) = connector.get_http_session(peer).await?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_body().await?;
    let status = loop {
        let head = session.read_resp_header_parts().await?;
        if !head.status.is_informational() {
            break head.status.as_u16();
        }
    };
    let mut body = Vec::new();
    // What is wrong has a status; what more it says nobody reads.
    while status == 200
        && let Some(piece) = session.read_body_ref().await?
    {
        let room = MAX_BODY - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Ok(Answer { status, body, cut: true });
        }
    }
    Ok(Answer { status, body, cut: false })
}

/// The longest answer that is read. The gauges of a vLLM stand at the beginning of its metrics.
pub(super) const MAX_BODY: usize = 256 << 10;
