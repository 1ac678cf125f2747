"""Small products in the documented layouts of their sensors, written without the package."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

Array = NDArray[Any]
LEFT, TOP, CRS = 500_000.0, 5_800_000.0, "EPSG:32633"


def raster(
    path: Path,
    cube: Array,
    *,
    pixel: float = 30.0,
    driver: str = "GTiff",
    nodata: float | None = None,
    **more: Any,
) -> Path:
    """A raster at (LEFT, TOP)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=len(cube),
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        crs=CRS,
        transform=Affine(pixel, 0, LEFT, 0, -pixel, TOP),
        nodata=nodata,
        **more,
    ) as dst:
        dst.write(cube)
    return path


def zipped(folder: Path, target: Path) -> Path:
    """A folder as a zip with the folder's name inside."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent).as_posix())
    return target


# Two detectors that overlap, as EnMAP's: the wavelengths step back once.
ENMAP_NM = np.array([420.0, 560.0, 665.0, 950.0, 990.0, 905.0, 960.0, 1250.0, 1650.0, 2200.0])
ENMAP_FWHM = np.array([6.5, 6.6, 7.0, 8.0, 8.2, 11.0, 11.1, 11.0, 9.0, 8.0])


def enmap(parent: Path, counts: Array, *, level: str = "L2A", cloud: Array | None = None) -> Path:
    """EnMAP per DLR's product specification: gains per band, quality rasters of one byte."""
    name = f"ENMAP01-____{level}-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"
    folder = parent / name
    raster(folder / f"{name}-SPECTRAL_IMAGE.TIF", counts, nodata=-32768 if level == "L2A" else 0)
    for kind in ("CLOUD", "CLOUDSHADOW", "CIRRUS", "CLASSES"):
        mask = np.zeros(counts.shape[1:], np.uint8)
        if cloud is not None and kind == "CLOUD":
            mask = cloud.astype(np.uint8)
        raster(folder / f"{name}-QL_QUALITY_{kind}.TIF", mask[None], nodata=0)
    bands = "".join(
        f'<bandID number="{k + 1}"><wavelengthCenterOfBand>{w}</wavelengthCenterOfBand>'
        f"<FWHMOfBand>{f}</FWHMOfBand><GainOfBand>{0.0001 * (k + 1)}</GainOfBand>"
        f"<OffsetOfBand>{0.001 * k}</OffsetOfBand></bandID>"
        for k, (w, f) in enumerate(zip(ENMAP_NM, ENMAP_FWHM, strict=True))
    )
    (folder / f"{name}-METADATA.XML").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><level_X><specific><bandCharacterisation>'
        f"{bands}</bandCharacterisation></specific></level_X>"
    )
    return folder


PRISMA_VNIR = np.array([0.0, 990.0, 940.0, 865.0, 560.0, 410.0])  # falling, the first unused
PRISMA_SWIR = np.array([2490.0, 1650.0, 1250.0, 960.0, 920.0, 0.0])


def prisma(path: Path, vnir: Array, swir: Array, *, invalid: Array | None = None) -> Path:
    """PRISMA L2D: cubes (line, band, column), counts 0 to 65535 between a minimum and a maximum."""
    place = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/"
    rows, _, columns = vnir.shape
    with h5py.File(path, "w") as file:
        file[place + "VNIR_Cube"], file[place + "SWIR_Cube"] = vnir, swir
        for part, cube in (("VNIR", vnir), ("SWIR", swir)):
            flags = np.zeros(cube.shape, np.uint8)
            if invalid is not None and part == "VNIR":
                flags[invalid] = 1
            file[f"{place}{part}_PIXEL_L2_ERR_MATRIX"] = flags
        attrs = {
            "List_Cw_Vnir": PRISMA_VNIR,
            "List_Fwhm_Vnir": PRISMA_VNIR * 0 + 12,
            "List_Cw_Swir": PRISMA_SWIR,
            "List_Fwhm_Swir": PRISMA_SWIR * 0 + 10,
            "L2ScaleVnirMin": np.float32(0.0),
            "L2ScaleVnirMax": np.float32(0.8),
            "L2ScaleSwirMin": np.float32(0.01),
            "L2ScaleSwirMax": np.float32(0.6),
            "Epsg_Code": np.int64(32633),
            "Product_ULcorner_easting": LEFT + 15,
            "Product_ULcorner_northing": TOP - 15,
            "Product_LRcorner_easting": LEFT + 30 * columns - 15,
            "Product_LRcorner_northing": TOP - 30 * rows + 15,
        }
        for key, value in attrs.items():
            file.attrs[key] = value
    return path


S2_BANDS = {
    "B02": 10,
    "B03": 10,
    "B04": 10,
    "B05": 20,
    "B06": 20,
    "B07": 20,
    "B08": 10,
    "B8A": 20,
    "B11": 20,
    "B12": 20,
}
_S2_NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 12)


def sentinel2(parent: Path, bands: dict[str, Array], *, level: str = "L2A", scl: Array | None = None) -> Path:
    """Sentinel-2 since baseline 04.00: an offset per band number, JPEG 2000 images without loss."""
    folder = parent / f"S2A_MSI{level}_20230601T100601_N0509_R022_T33UVT_20230601T150000.SAFE"
    granule = folder / "GRANULE" / f"{level}_T33UVT_A041000_20230601T100600"
    stem = "T33UVT_20230601T100601"
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    for band, size in S2_BANDS.items():
        place = f"R{size}m/{stem}_{band}_{size}m.jp2" if level == "L2A" else f"{stem}_{band}.jp2"
        raster(granule / "IMG_DATA" / place, bands[band][None], pixel=size, **lossless)
    if level == "L2A":
        shape = bands["B05"].shape
        classes = np.full(shape, 4, np.uint8) if scl is None else scl.astype(np.uint8)
        raster(granule / "IMG_DATA" / "R20m" / f"{stem}_SCL_20m.jp2", classes[None], pixel=20, **lossless)
        # a band that also comes at 20 m must not be taken
        raster(
            granule / "IMG_DATA" / "R20m" / f"{stem}_B02_20m.jp2", bands["B05"][None], pixel=20, **lossless
        )
    tag, quantum = ("BOA_ADD_OFFSET", "BOA_QUANTIFICATION_VALUE")
    if level == "L1C":
        tag, quantum = "RADIO_ADD_OFFSET", "QUANTIFICATION_VALUE"
    offsets = "".join(f'<{tag} band_id="{k}">{-1000 - k}</{tag}>' for k in range(13))
    spectra = "".join(
        f'<Spectral_Information bandId="{k}" physicalBand="X"><Wavelength><CENTRAL unit="nm">{400 + 10 * n}.5'
        "</CENTRAL></Wavelength></Spectral_Information>"
        for n, k in enumerate(_S2_NUMBERS)
    )
    (folder / f"MTD_MSI{level}.xml").write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><n1:Level-{level[1:]}_User_Product xmlns:n1="https://psd-14">'
        f'<n1:General_Info><Product_Image_Characteristics><{quantum} unit="none">10000</{quantum}>'
        f"<{tag}_LIST>{offsets}</{tag}_LIST><Spectral_Information_List>{spectra}</Spectral_Information_List>"
        f"</Product_Image_Characteristics></n1:General_Info></n1:Level-{level[1:]}_User_Product>"
    )
    return folder


EMIT_NM = np.array([400.0, 550.0, 700.0, 1400.0, 2200.0])


def emit(
    path: Path,
    cube: Array,
    table_x: Array,
    table_y: Array,
    *,
    flags: Array | None = None,
    corner: tuple[float, float] = (15.0, 52.5),
) -> Path:
    """EMIT L2A: cube (downtrack, crosstrack, bands), a lookup table from 1, the mask product beside it."""
    with h5py.File(path, "w") as file:
        file["reflectance"] = cube.astype(np.float32)
        file["reflectance"].attrs["_FillValue"] = np.float32([-9999])
        file["sensor_band_parameters/wavelengths"] = EMIT_NM.astype(np.float32)
        file["sensor_band_parameters/fwhm"] = np.full(5, 8.5, np.float32)
        file["sensor_band_parameters/good_wavelengths"] = np.array([1, 1, 1, 0, 1], np.float32)
        file["location/glt_x"], file["location/glt_y"] = table_x.astype(np.int32), table_y.astype(np.int32)
        file.attrs["geotransform"] = np.array([corner[0], 0.0005, 0, corner[1], 0, -0.0005])
        file.attrs["spatial_ref"] = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    if flags is not None:
        names = ["Cloud flag", "Cirrus flag", "Water flag", "Spacecraft Flag", "Dilated Cloud Flag", "AOD550"]
        with h5py.File(path.parent / path.name.replace("RFL", "MASK"), "w") as file:
            file["mask"] = flags.astype(np.float32)
            file.create_dataset("sensor_band_parameters/mask_bands", data=names, dtype=h5py.string_dtype())
    return path


def landsat(parent: Path, counts: Array, quality: Array, *, level: str = "L2SP", satellite: int = 8) -> Path:
    """Landsat Collection 2: rescaling in the MTL text by group, flags in QA_PIXEL."""
    stem = f"L{'C' if satellite > 7 else 'E'}{satellite:02d}_{level}_193023_20220724_20220802_02_T1"
    folder = parent / stem
    numbers = (1, 2, 3, 4, 5, 6, 7) if satellite > 7 else (1, 2, 3, 4, 5, 7)
    for number, band in zip(numbers, counts, strict=True):
        raster(folder / f"{stem}_{'SR_' if level == 'L2SP' else ''}B{number}.TIF", band[None], nodata=0)
    raster(folder / f"{stem}_QA_PIXEL.TIF", quality.astype(np.uint16)[None], nodata=1)
    rescale = {
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": (2.75e-05, -0.2),
        "LEVEL1_RADIOMETRIC_RESCALING": (2.0e-05, -0.1),
    }
    lines = ["GROUP = LANDSAT_METADATA_FILE", "  GROUP = IMAGE_ATTRIBUTES", "    SUN_ELEVATION = 30.0"]
    lines.append("  END_GROUP = IMAGE_ATTRIBUTES")
    for group, (gain, offset) in rescale.items():
        if level != "L2SP" and group.startswith("LEVEL2"):
            continue
        lines.append(f"  GROUP = {group}")
        for number in numbers:
            lines.append(f"    REFLECTANCE_MULT_BAND_{number} = {gain}")
            lines.append(f"    REFLECTANCE_ADD_BAND_{number} = {offset}")
        lines.append(f"  END_GROUP = {group}")
    (folder / f"{stem}_MTL.txt").write_text("\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END"]))
    return folder


DESIS_NM = np.array([401.3, 550.0, 700.0, 998.7])


def desis(parent: Path, counts: Array, *, quality: Array | None = None, level: str = "L2A") -> Path:
    """DESIS L2A: gains per band in METADATA.xml, ten quality rasters in one file."""
    name = f"DESIS-HSI-{level}-DT0483531728_001-20200628T153803-V0220"
    folder = parent / name
    raster(folder / f"{name}-SPECTRAL_IMAGE.tif", counts, nodata=-32768)
    masks = np.zeros((10, *counts.shape[1:]), np.uint8) if quality is None else quality
    raster(folder / f"{name}-QL_QUALITY-2.tif", masks, nodata=0)
    raster(folder / f"{name}-QL_QUALITY.tif", np.ones_like(counts, np.uint8))
    bands = "".join(
        f"<band><bandNumber>{k + 1}</bandNumber><wavelengthCenterOfBand>{w}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>3.5</wavelengthWidthOfBand><response>0.1,0.9</response>"
        f"<gainOfBand>0.0001</gainOfBand><offsetOfBand>{0.01 * k}</offsetOfBand></band>"
        for k, w in enumerate(DESIS_NM)
    )
    (folder / f"{name}-METADATA.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><hsi_doc><specific><bandCharacterisation>'
        f"{bands}</bandCharacterisation></specific></hsi_doc>"
    )
    return folder


def hyperion(parent: Path, counts: Array) -> Path:
    """Hyperion L1T: 242 GeoTIFFs, scaling factors of the two detectors in the MTL text."""
    stem = "EO1H1930232010200110KF"
    folder = parent / f"{stem}_1T"
    for band in range(1, 243):
        raster(folder / f"{stem}_B{band:03d}_L1T.TIF", counts[band - 1][None])
    (folder / f"{stem}_MTL_L1T.TXT").write_text(
        "GROUP = L1_METADATA_FILE\n  GROUP = RADIANCE_SCALING\n    SCALING_FACTOR_VNIR = 40.0\n"
        "    SCALING_FACTOR_SWIR = 80.0\n  END_GROUP = RADIANCE_SCALING\nEND_GROUP = L1_METADATA_FILE\nEND\n"
    )
    return folder


def planetscope(parent: Path, counts: Array, udm: Array, *, surface: bool = True) -> Path:
    """A PlanetScope scene: image, UDM2 of eight bands, coefficients in the metadata."""
    scene, folder = "20220724_101112_55_2416", parent / "PSScene"
    eight = "_8b" if len(counts) == 8 else ""
    end = "_SR_8b" if surface and eight else "_SR" if surface else eight
    raster(folder / f"{scene}_3B_AnalyticMS{end}.tif", counts, pixel=3, nodata=0)
    raster(folder / f"{scene}_3B_udm2.tif", udm, pixel=3)
    blocks = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{k + 1}</ps:bandNumber><ps:radiometricScaleFactor>0.01"
        f"</ps:radiometricScaleFactor><ps:reflectanceCoefficient>{2e-5 + k * 1e-6}</ps:reflectanceCoefficient>"
        "</ps:bandSpecificMetadata>"
        for k in range(len(counts))
    )
    (folder / f"{scene}_3B_AnalyticMS{eight}_metadata.xml").write_text(
        f'<?xml version="1.0"?><ps:EO xmlns:ps="http://schemas.planet.com/ps">{blocks}</ps:EO>'
    )
    return folder


def aviris_envi(path: Path, cube: Array, *, rotation: float = 0.0) -> Path:
    """AVIRIS-NG: a raw image without a suffix (line, band, sample), map info with a rotation."""
    bands, height, width = cube.shape
    cube.astype("<f4").transpose(1, 0, 2).tofile(path)
    wavelength = ", ".join(f"{400 + 5 * k}.5" for k in range(bands))
    path.with_name(path.name + ".hdr").write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\ndata type = 4\n"
        f"interleave = bil\nbyte order = 0\ndata ignore value = -9999\n"
        f"map info = {{UTM, 1, 1, {LEFT}, {TOP}, 5.0, 5.0, 33, North, WGS-84, units=Meters, rotation={rotation}}}\n"
        f"wavelength units = Nanometers\nwavelength = {{{wavelength}}}\nfwhm = {{{', '.join(['6.0'] * bands)}}}\n"
    )
    return path


def aviris_netcdf(path: Path, cube: Array) -> Path:
    """AVIRIS-3 L2A: group reflectance (wavelength, northing, easting) and transverse_mercator."""
    with h5py.File(path, "w") as file:
        file["reflectance/reflectance"] = cube.astype(np.float32)
        file["reflectance/reflectance"].attrs["_FillValue"] = np.float32([-9999])
        file["reflectance/wavelength"] = 400.5 + 7.4 * np.arange(len(cube), dtype=np.float32)
        file["reflectance/fwhm"] = np.full(len(cube), 8.0, np.float32)
        mapping = file.create_dataset("transverse_mercator", data=b"")
        mapping.attrs["spatial_ref"] = rasterio.crs.CRS.from_string(CRS).to_wkt()
        mapping.attrs["GeoTransform"] = f"{LEFT} 3.0 0.0 {TOP} 0.0 -3.0 "
    return path
