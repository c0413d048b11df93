//! The slips handed out with enrolment codes: one for each facility, to be printed and cut.

use banyan_shared::catalogue::Lang;
use maud::{DOCTYPE, html};

use crate::service::{EnrolledFile, say};

/// The page with all slips.
pub fn page(files: &[EnrolledFile], lang: Lang) -> String {
    let title = say(lang, "注册码", "Enrolment codes");
    html! {
        (DOCTYPE)
        html lang=(say(lang, "zh", "en")) {
            head {
                meta charset="utf-8";
                title { (title) }
                style { r#"
body { font-family: "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; margin: 1cm; }
.slip { border: 1px dashed #666; padding: .4cm; margin-bottom: .4cm; page-break-inside: avoid; }
.code { font-family: monospace; font-size: 12pt; word-break: break-all; }
h2 { font-size: 13pt; margin: 0 0 .2cm 0; } p { margin: .15cm 0; }
"# }
            }
            body {
                h1 { (title) }
                @for file in files {
                    div.slip {
                        h2 { (file.name) " " small { (file.unit) } }
                        p { (file.path) }
                        p.code { "banyan-agent enroll " (file.code) }
                        p { (say(lang, "有效期至 ", "valid until ")) (file.expires) }
                    }
                }
            }
        }
    }
    .into_string()
}
