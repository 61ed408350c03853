//! Whose certificates are believed.

use std::sync::atomic::{AtomicBool, Ordering};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Odd certificates were told of, once for each courier.
static SAID: AtomicBool = AtomicBool::new(false);

/// The roots in DER: those of the policy, else the system's, read anew for each job, so that
/// what is changed there counts at once.
///
/// Those that are no certificates of an authority are left out: one odd one must not keep
/// everything else from being sent.
///
/// # Errors
/// There are none.
pub(super) fn roots(
    certificates: Option<&[u8]>,
) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let mut found: Vec<CertificateDer<'static>> = match certificates {
        Some(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    let all = found.len();
    found.retain(|root| RootCertStore::empty().add(root.clone()).is_ok());
    let odd = all - found.len();
    if odd > 0 && !SAID.swap(true, Ordering::Relaxed) {
        let of = certificates.map_or("the system", |_| "notify.ca_file");
        tracing::warn!(
            odd,
            of,
            "certificates that are no authority's are passed over"
        );
    }
    match (found.is_empty(), certificates) {
        (false, _) => Ok(found),
        (true, Some(_)) => Err("notify.ca_file has no certificate"),
        (true, None) => Err("the system trusts no certificates; install ca-certificates"),
    }
}
