"""The words of the documents: names, places, years, figures and things.

No word is in two lists, so that a word identifies its kind of value. Every entry is one token of the tiny base's
word-level tokenizer: after a change, both the corpus and the base must be generated again.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Mara Ivo Tess Oskar Lena Bruno Clara Felix Nora Hugo Ines Jonas Karla Levin Mina Nils Olga Pavel Rosa Stefan "
    "Thea Ulric Vera Wanda Yara Zeno Anton Bella Cyril Dora Emil Flora Gregor Hanna Igor Judith Konrad Lydia Martin "
    "Nadia Otto Petra Quentin Ruth Simon Tilda Viktor Wilma"
)
SURNAMES = _words(
    "Voss Lang Arden Brandt Corbin Dahl Ekman Falk Grau Holm Ivers Jansen Keller Lund Moreau Norden Oberg Pryce Quill "
    "Rask Sorel Thorne Ullman Vance Winkler Yates Zeller Abbot Barlow Castell Dorn Ebner Frost Garner Hallam Irving "
    "Jarvis Kessel Landry Mercer Novak Osborn Pickard Ramsey Sandoz Tarrant Upton Varga Weller Ashby Bellini Crane "
    "Devlin Egger Fabre Gorski Hendry Imhof Joubert Kovacs Lorenz Marsh Nash Olsen Palmer Renner Sachs Tobin Unwin "
    "Verne Wolff Archer Bodin Calder Draper Elgin Farrow Gillis Hobart Innes Jessen Kramer Leclerc Munro Nolan Orwell "
    "Penrose Reeve Sutter Trask Ulmer Vidal Walsh Aldous Bergman"
)
PLACES = _words(
    "Kelden Tarn Marwick Solby Halvern Ostrand Penmoor Redcliff Silvane Tolmar Umberleigh Varnholt Westry Yarrowby "
    "Ambry Brackwater Calden Dunmore Elmstead Fernhill Galloway Hartsea Inverlock Jorvale Kingsmere Larkham Millbrook "
    "Northolt Oakhaven Pellworth Quarrydale Ravensea Stonebury Thornwick Ulverton Vellin Wexcombe Abermoor Birchley "
    "Coldwell Drumlin Eastmarch Foxley Greywater Highmoor Ironbridge Juniper Kirkwall Longford Moorgate Netherby "
    "Otterburn Plumstead Rosewall Saltmarsh Tidewell Underhill Wolfsburg Ashdown Briarton"
)
YEARS = tuple(str(year) for year in range(1821, 1941))
FIGURES = tuple(str(figure) for figure in range(13, 493, 5))
ADJECTIVES = _words(
    "amber silver hidden broken northern painted crooked golden hollow quiet scarlet wooden frozen ancient iron narrow "
    "copper marble velvet sunken winding pale crimson hanging forgotten glass bronze twisted floating emerald ivory "
    "weathered striped gilded sleeping walled double shallow round mossy"
)
THINGS = _words(
    "lantern mill bridge compass tower orchard well statue harp gatehouse tunnel clock chapel fountain mirror dam "
    "cellar theatre garden furnace archway staircase telescope barn engine boathouse library canal bell observatory "
    "vase bakery windmill signal crown dovecote greenhouse sundial granary pier"
)
TITLE_ADJECTIVES = _words(
    "Silent Endless Burning Distant Patient Restless Secret Gentle Stolen Wandering Bitter Faithful Lonely Bright "
    "Second Final Humble Stubborn Wicked Merry"
)
TITLE_NOUNS = _words(
    "Harbour Meadow Voyage Orphan Mountain Season Letter River Shepherd Kingdom Stranger Island Candle Sparrow Widow "
    "Forest Captain Promise Garland Thunder"
)
FIELDS = _words(
    "botany geometry astronomy medicine law music chemistry navigation geology poetry philosophy grammar painting "
    "surgery optics mechanics theology history pottery weaving zoology arithmetic printing masonry"
)
SOCIETIES = _words(
    "Meridian Harrow Beacon Lodestar Northgate Rosemary Falcon Juniperus Granite Cardinal Heron Evergreen Sterling "
    "Tempest Willow Argent"
)
SOCIETY_KINDS = _words("Society Academy Guild Company Circle College League Union")
