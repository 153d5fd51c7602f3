"""How good is the colour, and how much did painting teach the encoder? Metrics, tables, figures, the report page."""

from .baselines import grey_picture
from .calibration import ConfusedPair, expected_calibration_error, most_confused, per_class_accuracy
from .colour_quality import ColourQuality
from .comparison import Comparison, Difference, compare, difference, grey_note, headline
from .embedding import principal_components, project
from .extremes import picture_delta_e2000, worst_and_best
from .feature_tables import features_table
from .figures import confusion_matrix, depth_curves, label_curves, loss_curves
from .recolour import Classify, RecolourQuality, no_recolour
from .report import ReportRun, render_report, write_report
from .sections import comparison_notes
from .sheet import contact_sheet
from .tables import class_table, colour_table, side_by_side, transfer_table
from .transfer import INITS, PROTOCOLS, transfer_row

__all__ = [
    "INITS",
    "PROTOCOLS",
    "Classify",
    "ColourQuality",
    "Comparison",
    "ConfusedPair",
    "Difference",
    "RecolourQuality",
    "ReportRun",
    "class_table",
    "colour_table",
    "compare",
    "comparison_notes",
    "confusion_matrix",
    "contact_sheet",
    "depth_curves",
    "difference",
    "expected_calibration_error",
    "features_table",
    "grey_note",
    "grey_picture",
    "headline",
    "label_curves",
    "loss_curves",
    "most_confused",
    "no_recolour",
    "per_class_accuracy",
    "picture_delta_e2000",
    "principal_components",
    "project",
    "render_report",
    "side_by_side",
    "transfer_row",
    "transfer_table",
    "worst_and_best",
    "write_report",
]
