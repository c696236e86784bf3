"""Excerpts of speech, music, ambience and effects from Debian packages for labels.py, a package a folder.

A package's folder holds all its kinds, so that leaving out the own folder leaves out everything made for that game or
telephone: who speaks, who composed, and how it was recorded and packed. What is not installed is left out, and said;
packages that are there already stay. To install them all: apt install --no-install-recommends, and the names below.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
from label_excerpts import RATE, beginning

from embedindex.arrays import Float32Array
from embedindex.errors import AudioError

SHARE = Path("/usr/share")
MOST = 20  # files of a kind from a package
LENGTH_S = 10.0
LEAST_S = {"speech": 1.0, "music": 1.0, "ambience": 1.0, "effects": 0.1}
SUFFIXES = (".wav", ".ogg", ".oga", ".opus", ".gsm")

# Package, kind, folder below /usr/share, names. Ambience is what a place sounds like, meant to go on in the background:
# weather, water, fire, birds, a crowd, a town. Neither synthetic pads, nor engines, nor single events.
SOURCES = (
    ("7kaa-data", "ambience", "games/7kaa/SOUND", "FIRE* RAIN* THUNDER* WIND*"),
    ("alsa-utils", "speech", "sounds/alsa", "Front_* Rear_* Side_*"),
    ("ardentryst", "ambience", "games/ardentryst/Sounds", "AMB_* Rain_* cavewind* fire_*"),
    ("ardentryst", "music", "games/ardentryst/Music", "*"),
    ("ardentryst", "speech", "games/ardentryst/Sounds", "VOI_*"),
    (
        "asterisk-core-sounds-{en,es,fr,it,ru}-wav",
        "speech",
        "asterisk/sounds",
        "en_US*/**/* es_MX*/**/* fr_CA*/**/* it_IT_m*/**/* ru_RU*/**/*",
    ),
    ("asterisk-moh-opsound-wav", "music", "asterisk/moh", "*"),
    ("asterisk-prompt-es-co", "speech", "asterisk/sounds/es", "*"),
    ("asterisk-prompt-fr-armelle", "speech", "asterisk/sounds/fr", "*"),
    ("asterisk-prompt-it-menardi-wav", "speech", "asterisk/sounds/it_IT_f_Menardi", "**/*"),
    ("boswars-data", "speech", "games/boswars", "**/*.ready* **/*.completed* **/*.underattack* campaigns/tutorial/*"),
    ("btanks-data", "ambience", "games/btanks/data/sounds/ambient", "*"),
    ("caveexpress-data", "ambience", "games/caveexpress/sounds", "tile-geyser* tile-waterfall*"),
    ("caveexpress-data", "music", "games/caveexpress/sounds", "music-[12]*"),
    ("colobot-common-sounds", "music", "games/colobot/music", "*"),
    ("etw-data", "ambience", "games/etw/crowd", "*"),
    ("fillets-ng-data{,-cs,-nl}", "music", "games/fillets-ng/music", "*"),
    ("fillets-ng-data{,-cs,-nl}", "speech", "games/fillets-ng/sound", "**/cs/* **/nl/*"),
    ("flare-game", "ambience", "games/flare/mods", "*/soundfx/environment/[!a]*_loop* */soundfx/environment/rain*"),
    ("flare-game", "music", "games/flare/mods", "*/music/*_theme*"),
    ("freedroidrpg-data", "music", "freedroidrpg/data/sound/music", "*"),
    ("freedroidrpg-data", "speech", "freedroidrpg/data/sound/effects", "tux_ingame_comments/* */voice_samples/*"),
    ("hedgewars-data", "music", "games/hedgewars/Data/Music", "*"),
    ("hedgewars-data", "speech", "games/hedgewars/Data/Sounds/voices", "*/*"),
    ("hyperrogue-music", "music", "hyperrogue/music", "*"),
    ("klettres-data", "speech", "klettres", "*/alpha/* */syllab/*"),
    ("ktuberling-data", "speech", "ktuberling/sounds", "*/*"),
    (
        "lincity-ng-data",
        "ambience",
        "games/lincity-ng/sounds",
        "Commune* Farm* Fire[1-3]* Green* Harbor* Market* Organic* Park* Resid* School* Shanty* Sports* Water*",
    ),
    ("lincity-ng-data", "music", "games/lincity-ng/music/default", "*"),
    ("lmms-common", "ambience", "lmms/samples/misc", "applause* raving_crowd*"),
    ("lugaru-data", "ambience", "games/lugaru/Sounds", "DesertAmbient* Fire.* Wind*"),
    ("lugaru-data", "music", "games/lugaru/Sounds", "Music*"),
    ("megaglest-data", "ambience", "games/megaglest/tilesets", "*/sounds/*day* */sounds/night* */sounds/[rw]*in*"),
    ("megaglest-data", "music", "games/megaglest", "**/music/*"),
    (
        "minetest-data",
        "ambience",
        "games/minetest/games/minetest_game/mods",
        "env_sounds/*/* fire/*/fire_fire* fire/*/fire_large* fire/*/fire_small*",
    ),
    ("netpanzer-data", "speech", "games/netpanzer/sound", "*-selected* move_* target_*"),
    ("planetblupi-music-ogg", "music", "planetblupi/music", "*"),
    ("plee-the-bear-data", "ambience", "games/plee-the-bear/sound/weather", "*"),
    ("plee-the-bear-data", "music", "games/plee-the-bear/music", "**/*"),
    ("simutrans-pak64", "ambience", "games/simutrans/pak/sound", "Water* arctic* desert* forest* seagulls* tropic*"),
    ("singularity-music", "music", "", "singularity/music/* games/singularity/music/*"),
    ("supertux-data", "ambience", "games/supertux2/sounds", "lava* rain* waterfall*"),
    ("supertux-data", "music", "games/supertux2/music", "**/*"),
    ("tuxpaint-stamps-default", "speech", "tuxpaint/stamps", "**/*_desc*"),
    ("unknown-horizons", "ambience", "unknown-horizons/content/audio/sounds", "main* sheep* tavern* windmill*"),
    ("unknown-horizons", "music", "unknown-horizons/content/audio/music", "**/*"),
    ("unknown-horizons", "speech", "unknown-horizons/content/audio/voice", "**/*"),
    ("warmux-data", "music", "games/warmux/music", "**/*"),
    ("warzone2100-music", "music", "games/warzone2100/music", "**/*"),
    (
        "wesnoth-1.16-{data,music}",
        "ambience",
        "games/wesnoth/1.16/data/core/sounds/ambient",
        "birds* campfire* morning* night* ship*",
    ),
    ("wesnoth-1.16-{data,music}", "music", "games/wesnoth/1.16/data/core/music", "*"),
    ("widelands-data", "ambience", "games/widelands/data/sound", "animals/bird* animals/c* barbarians/taverns/*"),
    ("widelands-data", "music", "games/widelands/data/music", "**/*"),
)

# Single events: blows, shots, doors, cries, messages. They may be shorter than the rest.
EFFECTS = (
    (
        "ardentryst",
        "games/ardentryst/Sounds",
        "Cut* Hit* Ice* Imp* Weapon* Wood* drink* equip* menu* orb* quake* stone*",
    ),
    ("btanks-data", "games/btanks/data/sounds", "*"),
    ("caveexpress-data", "games/caveexpress/sounds", "crate* fruit* npc* player* stone*"),
    ("colobot-common-sounds", "games/colobot/sounds", "*"),
    ("flare-game", "games/flare/mods", "*/soundfx/enemies/* */soundfx/inventory/* */soundfx/powers/*"),
    ("freedroidrpg-data", "freedroidrpg/data/sound/effects", "* bullets/* item_sounds/*"),
    ("hedgewars-data", "games/hedgewars/Data/Sounds", "*"),
    ("hyperrogue-music", "hyperrogue/sounds", "*"),
    ("lugaru-data", "games/lugaru/Sounds", "[!DFMW]*"),
    ("minetest-data", "games/minetest/games/minetest_game/mods/default/sounds", "*"),
    ("netpanzer-data", "games/netpanzer/sound", "*-fire* battle_* expl_* hit_* miss_*"),
    ("plee-the-bear-data", "games/plee-the-bear/sound", "* forest/*/* plee/*"),
    (
        "simutrans-pak64",
        "games/simutrans/pak/sound",
        "b* cash* comet* crossing* diesel* explosion* gavel* horse* jack* plane* steam* tree* truck*",
    ),
    ("sound-theme-freedesktop", "sounds/freedesktop/stereo", "*"),
    ("supertux-data", "games/supertux2/sounds", "[!lrtw]*"),
    ("tuxpaint-data", "tuxpaint/sounds", "*"),
    (
        "unknown-horizons",
        "unknown-horizons/content/audio/sounds",
        "build* click* flip* invalid* ship* smith* stone* suc*",
    ),
    ("wesnoth-1.16-{data,music}", "games/wesnoth/1.16/data/core/sounds", "*"),
    ("widelands-data", "games/widelands/data/sound", "hammering/* metal/* saw*/* smiths/* woodcutting/*"),
)
ALL = sorted(SOURCES + tuple((package, "effects", place, names) for package, place, names in EFFECTS))


def mix(folder: Path) -> str:
    """Cut the last 10 s of the first 20 s of sounds, FOLDER/package/kind-number name.wav, and return the folder."""
    for package in dict.fromkeys(source[0] for source in ALL):
        kept = folder / package.split("{")[0].rstrip("-")
        if kept.is_dir():
            continue
        part = kept.with_name(kept.name + ".part")
        part.mkdir(parents=True, exist_ok=True)
        for _, kind, place, names in (source for source in ALL if source[0] == package):
            for number, (path, sound) in enumerate(_excerpts(place, names, LEAST_S[kind])):
                sf.write(part / f"{kind}-{number:02} {path.stem}.wav", sound, RATE)
        if any(part.iterdir()):
            part.rename(kept)
        else:
            print(f"left out of the mix: {package} is not installed", file=sys.stderr)
            part.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()
    return str(folder)


def _excerpts(place: str, names: str, least_s: float) -> Iterator[tuple[Path, Float32Array]]:
    """Yield (file, what is heard of it) of some files, drawn at random, without copies and too short ones."""
    found = [path for name in names.split() for path in (SHARE / place).glob(name) if path.suffix.lower() in SUFFIXES]
    distinct = list({hashlib.sha256(path.read_bytes()).digest(): path for path in sorted(found, reverse=True)}.values())
    left = MOST
    for number in np.random.default_rng(1).permutation(len(distinct)):
        try:
            sound = beginning(distinct[number], 2 * LENGTH_S)[-round(LENGTH_S * RATE) :]
        except AudioError:
            continue
        if len(sound) >= least_s * RATE:
            yield distinct[number], sound
            left -= 1
        if not left:
            return
