"""Language codes: what people write, and the FLORES code that is meant.

Everything in the toolkit is labelled by FLORES-200 codes: ISO 639-3 and ISO 15924, `eng_Latn`.
Files and people also write `en`, `eng`, `pt-BR` or `zh-Hans`. A code is completed only where
FLORES-200 writes that language in one script; what stays open (`zh`, `sr`) is decided by what a
corpus holds, or refused as ambiguous.

Source: NLLB Team (2022), "No Language Left Behind", arXiv:2207.04672, table 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from repsim.core.errors import InputError, UsageError

# Serbian is written in two scripts, though FLORES-200 holds one: `sr` alone does not say which.
_FLORES = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab
arb_Arab ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl
bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn
bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn
dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn
fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn
hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn
ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl
kbp_Latn kea_Latn khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn
kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn
lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl
mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn
prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh
slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl srp_Latn
ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl
tgl_Latn tha_Thai tir_Ethi tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng
uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr
yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""

# ISO 639-1, and ISO 639-3 codes that other collections use for the same language.
_SHORT = """
af:afr ak:aka am:amh ar:arb as:asm ay:ayr az:azj ba:bak be:bel bg:bul bm:bam bn:ben bo:bod bs:bos
ca:cat cs:ces cy:cym da:dan de:deu dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:pes
fi:fin fj:fij fo:fao fr:fra ga:gle gd:gla gl:glg gn:grn gu:guj ha:hau he:heb hi:hin hr:hrv ht:hat
hu:hun hy:hye id:ind ig:ibo is:isl it:ita iw:heb ja:jpn jv:jav ka:kat kg:kon ki:kik kk:kaz km:khm
kn:kan ko:kor ku:kmr ky:kir lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lv:lvs mg:plt mi:mri mk:mkd
ml:mal mn:khk mr:mar ms:zsm mt:mlt my:mya nb:nob ne:npi nl:nld nn:nno no:nob ny:nya oc:oci om:gaz
or:ory pa:pan pl:pol ps:pbt pt:por qu:quy rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd sg:sag
si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:als sr:srp ss:ssw st:sot su:sun sv:swe sw:swh ta:tam
te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn tr:tur ts:tso tt:tat tw:twi ug:uig uk:ukr ur:urd
uz:uzn vi:vie wo:wol xh:xho yi:ydd yo:yor zh:zho zu:zul
ara:arb aze:azj cmn:zho ekk:est fas:pes fil:tgl kur:kmr lav:lvs mlg:plt mon:khk msa:zsm nep:npi
nor:nob ori:ory orm:gaz pus:pbt que:quy sqi:als swa:swh uzb:uzn yid:ydd
"""

_SCRIPTS: dict[str, list[str]] = {}
for _code in _FLORES.split():
    _SCRIPTS.setdefault(_code[:3], []).append(_code[4:])
_ALIASES: dict[str, str] = dict(pair.split(":") for pair in _SHORT.split())
# Chinese as these regions print it.
_REGION_SCRIPT = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_PATTERN = re.compile(
    r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?"
    r"(?:[-_]([A-Za-z0-9]{5,8}))?"
)


class LanguageTag(NamedTuple):
    """A language code, taken apart."""

    language: str
    script: str | None
    region: str | None = None
    variant: str | None = None

    @property
    def label(self) -> str:
        """The FLORES-style code; the bare language where the script is open."""
        return "_".join(part for part in (self.language, self.script, self.variant) if part)

    def fits(self, other: LanguageTag) -> bool:
        """Whether both could mean the same text: equal wherever both say something."""
        pairs = zip(self, other, strict=True)
        return all(a == b or a is None or b is None for a, b in pairs)


def parse_language(code: str) -> LanguageTag | None:
    """Take a code apart; None if it is no language code that is known."""
    match = _PATTERN.fullmatch(code.strip())
    if match is None:
        return None
    language, script, region, variant = match.groups()
    language = _ALIASES.get(language.lower(), language.lower())
    if script is None and language not in _SCRIPTS:
        return None
    region = region.upper() if region else None
    if script is None:
        known = _SCRIPTS[language]
        script = known[0] if len(known) == 1 else None
        if script is None and language == "zho":
            script = _REGION_SCRIPT.get(region or "")
    return LanguageTag(
        language, script.title() if script else None, region, variant.lower() if variant else None
    )


def choose_languages(
    wanted: Sequence[str] | None, available: Sequence[str], *, where: str
) -> dict[str, str]:
    """Match what the user asked for with what a corpus offers."""
    if not available:
        raise InputError(
            f"{where} holds no language",
            hint="languages are named by codes such as eng_Latn, eng or en",
        )
    labels = _labels(available)
    if wanted is None:
        return labels
    chosen: dict[str, str] = {}
    for code in wanted:
        label, column = _find(code, labels, where)
        if label in chosen or column in chosen.values():
            raise UsageError(f"language {label} is asked for twice ('{code}')")
        chosen[label] = column
    if not chosen:
        raise UsageError("no language is asked for", hint=f"{where} has: {', '.join(labels)}")
    return chosen


def _labels(available: Sequence[str]) -> dict[str, str]:
    """Label -> code in the corpus; two columns that would share a label keep their own names."""
    tags = {code: parse_language(code) for code in available}
    names = {code: tag.label if tag else code for code, tag in tags.items()}
    counts = list(names.values())
    return {code if counts.count(name) > 1 else name: code for code, name in names.items()}


def unknown_language(code: str, labels: Iterable[str], where: str) -> UsageError:
    """What a corpus lacks, with the nearest that it has: by language, as scripts are much alike."""
    bare = {label: label.partition("_")[0] for label in labels}
    near = difflib.get_close_matches(code.partition("_")[0].lower(), bare.values(), n=3)
    meant = [f"'{label}'" for label, own in bare.items() if own in near]
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    some = ", ".join(list(bare)[:60]) + (f" and {len(bare) - 60} more" if len(bare) > 60 else "")
    return UsageError(f"unknown language '{code[:80]}' in {where}", hint=f"{hint}it has: {some}")


def _find(code: str, labels: dict[str, str], where: str) -> tuple[str, str]:
    """Label and column that one wanted code means."""
    for label, column in labels.items():
        if code in (label, column):
            return label, column
    tag = parse_language(code)
    fitting: dict[str, str] = {}
    if tag is not None:
        parsed = {label: parse_language(column) for label, column in labels.items()}
        fitting = {k: labels[k] for k, other in parsed.items() if other and tag.fits(other)}
        if tag.label in fitting:
            return tag.label, fitting[tag.label]
    if len(fitting) > 1:
        raise UsageError(
            f"language '{code}' is ambiguous in {where}", hint=f"one of: {', '.join(fitting)}"
        )
    if tag is None or not fitting:
        raise unknown_language(code, labels, where)
    label, column = next(iter(fitting.items()))
    # A full code names a column that leaves its script open.
    return (tag.label if label == tag.language and tag.script else label), column
