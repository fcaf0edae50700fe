//! What the gateway's own process or machine has run out of. A connection that fails for it says nothing of a backend.

use std::error::Error as StdError;
use std::io;

use pingora::Error;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use super::words::UNRESOLVED;

/// Whether a connection failed because the gateway, not the backend, lacks something: descriptors, or memory of the
/// kernel.
#[must_use]
pub fn is_ours(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error.root_cause());
    while let Some(one) = cause {
        if let Some(errno) = one.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return LACKS.contains(&Errno::from_raw_os_error(errno));
        }
        cause = one.source();
    }
    // A resolver that can't open its files says only that it can't resolve.
    *error.etype() == UNRESOLVED && no_descriptor()
}

/// Whether the system lacks descriptors or memory.
#[must_use]
pub fn is_lack(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| LACKS.contains(&Errno::from_raw_os_error(errno)))
}

/// Whether there is no descriptor to be had now.
fn no_descriptor() -> bool {
    socket(AddressFamily::UNIX, SocketType::STREAM, None).is_err_and(|errno| LACKS.contains(&errno))
}

/// Descriptors of the process, of the machine; buffers; memory. Not that an address can't be had (EADDRNOTAVAIL): that is
/// the lack of a port towards one backend, or of a way to it, so another one may do, and this one is out of reach.
const LACKS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];

#[cfg(test)]
mod tests {
    use pingora::{ErrorType, OrErr};

    use super::*;

    fn failed(errno: Errno) -> Box<Error> {
        let system: Result<(), io::Error> = Err(io::Error::from_raw_os_error(errno.raw_os_error()));
        let socket = system.or_err(ErrorType::SocketError, "failed to create socket").unwrap_err();
        Error::because(ErrorType::InternalError, "can't connect", socket)
    }

    #[test]
    fn what_the_system_refused_the_gateway_is_told_from_what_the_backend_did() {
        for errno in LACKS {
            assert!(is_ours(&failed(errno)), "{errno}");
        }
        for errno in [
            Errno::ADDRNOTAVAIL,
            Errno::CONNREFUSED,
            Errno::CONNRESET,
            Errno::TIMEDOUT,
            Errno::HOSTUNREACH,
            Errno::ACCESS,
        ] {
            assert!(!is_ours(&failed(errno)), "{errno}");
        }
        assert!(!is_ours(&Error::new(ErrorType::ConnectTimedout)));
        assert!(!is_ours(&Error::new(UNRESOLVED)), "there are descriptors now");
    }
}
