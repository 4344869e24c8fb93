//! The page that a person reads: written from the reports.
use std::path::Path;

use crate::Result;

pub(crate) fn write(_path: &Path, _cache: &Path) -> Result<()> {
    Ok(())
}
