//! The shipped registry is what the generator makes of its source, byte for byte.

use std::path::Path;

use banyan_tests::guizhou::{Source, generate};

#[test]
fn the_shipped_registry_is_what_the_generator_makes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    let read = |name: &str| std::fs::read(seeds.join(name)).expect("a file of the seeds");
    let (registry, villages) = (read("source/registry.csv"), read("source/villages.csv"));
    let files = generate(Source { registry: &registry, villages: &villages }).unwrap();
    assert_eq!(files.len(), 8);
    for (table, bytes) in files {
        assert!(read(&format!("guizhou/{}", table.file_name())) == bytes, "{table:?}");
    }
}

#[test]
fn a_source_without_the_places_the_rules_name_is_refused() {
    let source = Source {
        registry: b"code,name,level,parent\n52,x,province,\n",
        villages: b"code,name,level,parent\n",
    };
    assert!(generate(source).unwrap_err().to_string().contains("520102"));
}
