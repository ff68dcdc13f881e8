//! Schemas of namespaces: paths become the texts of their files, and every text is compiled once to see that it can be.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use talewire_server::Schema;

use super::Config;
use super::check::Findings;

/// The longest schema, in bytes.
const SCHEMA_BYTES_MAX: u64 = 1_048_576;

/// Puts the text of every schema in the place of its path, which starts from `folder`.
pub(super) fn read(config: &mut Config, folder: &Path) -> Findings {
    let mut findings = Findings::new();
    for (name, rules) in &mut config.namespaces {
        let Some(schema) = &mut rules.schema else { continue };
        let text =
            if schema.trim_start().starts_with('{') { Ok(schema.clone()) } else { text_of(&folder.join(&*schema)) };
        match text.and_then(|text| Schema::compile(&text).map(|_| text)) {
            Ok(text) => *schema = text,
            Err(reason) => findings.push((format!("namespaces.{name}.schema"), reason)),
        }
    }
    findings
}

fn text_of(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(SCHEMA_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(read) if read as u64 > SCHEMA_BYTES_MAX => Err(format!("{} is too long for a schema", path.display())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
